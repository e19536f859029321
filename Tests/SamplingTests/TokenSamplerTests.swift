import Numerics
import Sampling
import Serving
import Testing

@Suite struct TokenSamplerTests {
    private func sample(
        _ logits: [Float], _ row: SampleRow, top: Int = 0, history: [UInt32] = [], promptCount: Int = 0
    ) throws -> Token {
        var copy = logits
        var row = row
        (row.topLogprobs, row.history, row.promptCount) = (top, history, promptCount)
        var sampler = TokenSampler()
        return try copy.withUnsafeMutableBufferPointer { try sampler.sample($0, row) }
    }

    /// Known answers of the Random123 distribution (kat_vectors).
    @Test func philoxKnownAnswers() {
        #expect(
            CounterRandom.philox(counter: SIMD4(repeating: 0), key: SIMD2(repeating: 0))
                == SIMD4(0x6627_E8D5, 0xE169_C58D, 0xBC57_AC4C, 0x9B00_DBD8))
        #expect(
            CounterRandom.philox(counter: SIMD4(repeating: .max), key: SIMD2(repeating: .max))
                == SIMD4(0x408F_276D, 0x41C8_3B0E, 0xA20B_C7C6, 0x6D54_51FD))
    }

    @Test func greedyTakesTheLowestOfEquals() throws {
        let token = try sample([0, 3, 3, 1], SampleRow(), top: 3)
        #expect(token.id == 1)
        #expect(token.top.map(\.id) == [1, 2, 3])
        #expect(abs(token.logprob - token.top[0].logprob) < 1e-6)
    }

    @Test func frequenciesFollowTheDistribution() throws {
        let logits: [Float] = [0, 1, 2, 0.5]
        var row = SampleRow()
        row.sampling.temperature = 1
        row.sampling.seed = 42
        var counts = [0, 0, 0, 0]
        for position in 0..<20_000 {
            row.position = UInt64(position)
            counts[Int(try sample(logits, row).id)] += 1
        }
        let weights = [1, 2.718_281_8, 7.389_056, 1.648_721]
        let total = weights.reduce(0, +)
        let chiSquare = zip(counts, weights).reduce(0.0) { sum, pair in
            let expected = 20_000 * pair.1 / total
            return sum + (Double(pair.0) - expected) * (Double(pair.0) - expected) / expected
        }
        #expect(chiSquare < 16.27, "seed 42: chi-square \(chiSquare) over 3 degrees of freedom (p = 0.001)")
    }

    @Test func filtersKeepWhatTheySay() throws {
        let logits: [Float] = [5, 4, 3, 2, 1, 0]
        func reached(_ change: (inout Sampling) -> Void) throws -> Set<UInt32> {
            var row = SampleRow()
            row.sampling.temperature = 2
            change(&row.sampling)
            var seen: Set<UInt32> = []
            for position in 0..<500 {
                row.position = UInt64(position)
                seen.insert(try sample(logits, row).id)
            }
            return seen
        }
        #expect(try reached { $0.topK = 2 } == [0, 1])
        #expect(try reached { $0.topP = 0 } == [0])
        #expect(try reached { $0.minP = 0.3 } == [0, 1, 2])
        #expect(try reached { _ in } == [0, 1, 2, 3, 4, 5])
    }

    @Test func penaltiesUseTheHistory() throws {
        var row = SampleRow()
        row.sampling.repetitionPenalty = 2
        #expect(try sample([4, 3], row, history: [0], promptCount: 1).id == 1)
        row.sampling.repetitionPenalty = 1
        row.sampling.presencePenalty = 2
        #expect(try sample([4, 3], row, history: [0], promptCount: 1).id == 0, "the prompt does not count")
        #expect(try sample([4, 3], row, history: [0], promptCount: 0).id == 1)
        let token = try sample([4, 3], row, history: [0], promptCount: 0)
        #expect(abs(token.logprob - -1.313_261_7) < 1e-5, "logprobs are those of the raw logits")
    }

    @Test func hopelessLogitsAreAnError() {
        #expect(throws: SamplingError.self) { try sample([0, .nan], SampleRow()) }
        #expect(throws: SamplingError.self) { try sample([-.infinity, -.infinity], SampleRow()) }
        #expect(throws: Never.self) { try sample([-.infinity, 1], SampleRow()) }
    }

    @Test func biasesAndBansDecideWhatIsChosenButNotItsLogprob() throws {
        var row = SampleRow()
        let plain = try sample([0, 3, 2, 1], row, top: 4)
        row.sampling.logitBias = [TokenBias(id: 2, bias: 5), TokenBias(id: 9, bias: 100)]
        let biased = try sample([0, 3, 2, 1], row, top: 4)
        #expect(biased.id == 2)
        #expect(biased.top.map(\.id) == plain.top.map(\.id))
        #expect(biased.logprob == plain.top[1].logprob)
        row.banned = [2, 1, 77]
        #expect(try sample([0, 3, 2, 1], row).id == 3)
        row.sampling.temperature = 5
        for position in 0..<200 {
            row.position = UInt64(position)
            #expect([0, 3].contains(try sample([0, 3, 2, 1], row).id))
        }
        row.banned = [0, 1, 2, 3]
        #expect(throws: SamplingError.self) { try sample([0, 3, 2, 1], row) }
    }
}
