import Checkpoint
import HybridModel
import TestSupport
import Testing

/// House rule: a row's bits do not depend on the company it travels in.
@Suite struct CompanyTests {
    @Test(arguments: ["base", "noqlora6h", "tail", "fp8"]) func chunkingKeepsTheBits(name: String) throws {
        let rig = try Rig(try Golden(name).checkpoint)
        let prompt = (0..<200).map { UInt32($0 * 37 % 256) }
        let whole = rig.prefill(prompt)
        #expect(rig.prefill(prompt, chunk: 64) == whole)
        #expect(rig.prefill(prompt, chunk: 128) == whole)
    }

    @Test(arguments: ["base", "noqlora6h", "fp8"]) func threadsAndShardsKeepTheBits(name: String) throws {
        let checkpoint = try Golden(name).checkpoint
        let prompt = (0..<100).map { UInt32($0 * 11 % 256) }
        let reference = try Rig(checkpoint, threads: 1).prefill(prompt)
        for (threads, shards) in [(2, 1), (3, 2), (1, 3)] {
            let rig = try Rig(checkpoint, threads: threads, shards: shards)
            #expect(rig.prefill(prompt) == reference, "\(threads) threads, \(shards) shards")
        }
    }

    @Test(arguments: ["base", "fp8"]) func copiedAndMappedWeightsGiveTheSameBits(name: String) throws {
        var checkpoint = try Golden(name).checkpoint
        let prompt = (0..<70).map { UInt32($0 * 29 % 256) }
        checkpoint.placement = .copied
        let copied = try Rig(checkpoint).prefill(prompt)
        checkpoint.placement = .mapped
        #expect(try Rig(checkpoint).prefill(prompt) == copied)
    }

    @Test func decodingInABatchOfNineKeepsTheBits() throws {
        let checkpoint = try Golden("base").checkpoint
        let prompts = (0..<9).map { request in (0..<(20 + 13 * request)).map { UInt32(($0 * 7 + request * 31) % 256) } }
        let alone = try Rig(checkpoint)
        var expected: [[Float]] = []
        var token: UInt32 = 5
        _ = alone.prefill(prompts[3])
        for step in 0..<6 {
            expected.append(alone.decode(token, position: prompts[3].count + step))
            token = argmax(expected[step])
        }
        let together = try Rig(checkpoint, slots: 9)
        for (slot, prompt) in prompts.enumerated() { _ = together.prefill(prompt, slot: slot) }
        token = 5
        for step in 0..<6 {
            let segments = prompts.indices.map { slot in
                together.segment(slot == 3 ? token : UInt32(slot + step), prompts[slot].count + step, slot)
            }
            let logits = together.forward.logits(segments, state: together.state)
            let row = Array(logits[3 * together.vocabulary..<4 * together.vocabulary])
            #expect(row == expected[step], "step \(step)")
            token = argmax(row)
        }
    }

    /// A row depends on the tokens before it: not on which of them were a prompt, were generated, or came in one step.
    @Test(arguments: ["base", "noqlora6h", "tail", "fp8", "yarn"])
    func aRowHasTheSameBitsWhateverItsHistory(name: String) throws {
        let rig = try Rig(try Golden(name).checkpoint)
        let tokens = (0..<200).map { UInt32($0 * 37 % 256) }
        let expected = rig.prefill(tokens)
        for seed in UInt64(1)...12 {
            var random = SeededRandom(seed: seed)
            var (position, logits) = (0, [Float]())
            while position < tokens.count {
                let most = seed % 3 == 0 ? 3 : 100
                let count = min(tokens.count - position, Int.random(in: 1...most, using: &random))
                let segment = Segment(
                    slot: 0, pages: Array(0..<8), position: position,
                    tokens: Array(tokens[position..<position + count]))
                logits += rig.forward.logits([segment], state: rig.state)
                position += count
            }
            #expect(logits == expected, "seed \(seed)")
        }
    }

    @Test func decodeRowsBesideAPromptKeepTheBits() throws {
        let checkpoint = try Golden("tail").checkpoint
        let prompt = (0..<130).map { UInt32($0 * 5 % 256) }
        let alone = try Rig(checkpoint, slots: 2)
        let expectedPrompt = alone.prefill(prompt, slot: 1)
        _ = alone.prefill(Array(prompt.prefix(40)))
        let expectedRow = alone.decode(9, position: 40)
        let mixed = try Rig(checkpoint, slots: 2)
        _ = mixed.prefill(Array(prompt.prefix(40)))
        let segment = Segment(slot: 1, pages: Array(8..<16), position: 0, tokens: prompt)
        let logits = mixed.forward.logits([mixed.segment(9, 40, 0), segment], state: mixed.state)
        #expect(Array(logits.prefix(mixed.vocabulary)) == expectedRow)
        #expect(Array(logits.dropFirst(mixed.vocabulary)) == expectedPrompt)
    }
}
