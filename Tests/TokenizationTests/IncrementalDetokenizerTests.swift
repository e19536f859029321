import TestSupport
import Testing
import Tokenization

@Suite struct IncrementalDetokenizerTests {
    private func incremental(_ ids: some Sequence<UInt32>, _ tokenizer: any TokenCoding) -> String {
        var detokenizer = IncrementalDetokenizer(tokenizer)
        var text = ""
        for id in ids { text += detokenizer.append(id) ?? "" }
        return text + detokenizer.flush()
    }

    /// Each side of a split for itself, and the second side continued from the first.
    @Test func incrementalEqualsWholeForEverySplitOfEveryCase() throws {
        let tokenizer = try #require(Fixtures.golden)
        var splits = 0
        for sample in try Fixtures.cases() {
            let whole = tokenizer.decode(sample.ids)
            var detokenizer = IncrementalDetokenizer(tokenizer)
            var shown = ""
            for end in 0...sample.ids.count {
                let (head, tail) = (sample.ids[..<end], sample.ids[end...])
                let isSame =
                    incremental(head, tokenizer).utf8.elementsEqual(tokenizer.decode(head).utf8)
                    && incremental(tail, tokenizer).utf8.elementsEqual(tokenizer.decode(tail).utf8)
                #expect(isSame, "\(sample.text.debugDescription) cut at \(end)")
                #expect(whole.utf8.starts(with: shown.utf8), "\(sample.text.debugDescription) at \(end)")
                splits += 1
                guard let id = tail.first, let part = detokenizer.append(id) else { continue }
                #expect(!part.isEmpty)
                shown += part
            }
            #expect((shown + detokenizer.flush()).utf8.elementsEqual(whole.utf8))
        }
        #expect(splits > 10_000)
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
        var generator = SeededRandom(seed: seed)
        let likely: [UInt8] = [
            0x41, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC2, 0xE0, 0xE1, 0xED, 0xF0, 0xF1, 0xF4, 0xF5,
        ]
        for round in 0..<4000 {
            let count = Int.random(in: 1...9, using: &generator)
            let bytes = (0..<count).map { _ in likely.randomElement(using: &generator) ?? 0 }
            let whole = String(decoding: bytes, as: UTF8.self)
            let parts = incremental(bytes.map { UInt32($0) }, ByteTokenizer())
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
