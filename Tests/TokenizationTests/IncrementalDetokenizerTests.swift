import Testing
import Tokenization

@Suite struct IncrementalDetokenizerTests {
    private func incremental(_ ids: some Sequence<UInt32>, _ tokenizer: any TokenCoding) -> (text: String, parts: Int) {
        var detokenizer = IncrementalDetokenizer(tokenizer)
        var text = ""
        var parts = 0
        for id in ids {
            guard let part = detokenizer.append(id) else { continue }
            #expect(!part.isEmpty)
            text += part
            parts += 1
        }
        return (text + detokenizer.flush(), parts)
    }

    @Test func incrementalEqualsWholeForEverySplit() throws {
        let tokenizer = try #require(Fixtures.golden)
        for sample in try Fixtures.cases() where sample.ids.count < 80 {
            for end in 0...sample.ids.count {
                let (head, tail) = (sample.ids[..<end], sample.ids[end...])
                #expect(incremental(head, tokenizer).text.utf8.elementsEqual(tokenizer.decode(head).utf8))
                #expect(incremental(tail, tokenizer).text.utf8.elementsEqual(tokenizer.decode(tail).utf8))
            }
        }
    }

    @Test func onlyWholeCharactersComeOut() {
        var detokenizer = IncrementalDetokenizer(ByteTokenizer())
        let parts = Array("é😀x".utf8).map { detokenizer.append(UInt32($0)) }
        #expect(parts == [nil, "é", nil, nil, nil, "😀", "x"])
        #expect(detokenizer.flush() == "")
        #expect(detokenizer.append(0xF0) == nil && detokenizer.append(0x9F) == nil)
        #expect(detokenizer.append(999) == nil)
        #expect(detokenizer.flush() == "\u{FFFD}" && detokenizer.flush() == "")
    }

    @Test func brokenBytesComeOutAsInTheWhole() {
        let seed: UInt64 = 0xBAD
        var generator = SplitMix(state: seed)
        let likely: [UInt8] = [
            0x41, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC2, 0xE0, 0xE1, 0xED, 0xF0, 0xF1, 0xF4, 0xF5,
        ]
        for round in 0..<4000 {
            let count = Int.random(in: 1...9, using: &generator)
            let bytes = (0..<count).map { _ in likely.randomElement(using: &generator) ?? 0 }
            let whole = String(decoding: bytes, as: UTF8.self)
            let parts = incremental(bytes.map { UInt32($0) }, ByteTokenizer()).text
            #expect(whole.utf8.elementsEqual(parts.utf8), "seed \(seed) round \(round) \(bytes)")
        }
    }

    @Test func whatIsHeldBackIsBounded() {
        #expect(IncrementalDetokenizer.unfinishedBytes([0x80, 0x80, 0x80]) == 0)
        #expect(IncrementalDetokenizer.unfinishedBytes([0xF0, 0x9F, 0x98]) == 3)
        #expect(IncrementalDetokenizer.unfinishedBytes([0xED, 0xA0]) == 0)
        #expect(IncrementalDetokenizer.unfinishedBytes([0x41, 0xE2]) == 1)
        #expect(IncrementalDetokenizer.unfinishedBytes([]) == 0)
    }

    @Test func specialTokensCanBeLeftOut() throws {
        var detokenizer = IncrementalDetokenizer(try #require(Fixtures.golden), skipSpecial: true)
        #expect(detokenizer.append(4087) == nil)
        #expect(detokenizer.append(4088) == "<role>")
    }
}
