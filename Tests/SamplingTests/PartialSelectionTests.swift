import Numerics
import Sampling
import TestSupport
import Testing

/// Drawing must not notice that only the candidates that can be kept are put in order.
@Suite struct PartialSelectionTests {
    /// What the filters mean, with everything sorted.
    private func definition(_ logits: [Float], _ p: SamplingParameters) -> UInt32 {
        let highest = logits.max() ?? 0
        var all = logits.enumerated().filter { $1 > -.infinity }.map { (id: UInt32($0), logit: $1) }
        let isFiltered = p.topK > 0 || p.topP < 1 || p.minP > 0
        if isFiltered { all.sort { $0.logit > $1.logit || ($0.logit == $1.logit && $0.id < $1.id) } }
        if p.topK > 0 { all = Array(all.prefix(p.topK)) }
        var weights = all.map { Double(Kernels.exponential(($0.logit - highest) / p.temperature)) }
        if isFiltered {
            let total = weights.reduce(0, +)
            var (kept, mass) = (0, 0.0)
            while kept < weights.count, kept == 0 || mass < Double(p.topP) * total {
                mass += weights[kept]
                kept += 1
            }
            while kept > 1, weights[kept - 1] < Double(p.minP) * weights[0] { kept -= 1 }
            weights = Array(weights.prefix(kept))
        }
        var left = CounterRandom.uniform(seed: p.seed, position: p.position) * weights.reduce(0, +)
        for (index, weight) in weights.enumerated() {
            left -= weight
            if left < 0 { return all[index].id }
        }
        return all[weights.count - 1].id
    }

    @Test func drawsWhatAFullSortDraws() throws {
        var random = SeededRandom(seed: 77)
        var sampler = TokenSampler()
        for round in 0..<400 {
            let count = 1 + Int(random.next() % 700)
            // few distinct values, so that ties are common
            var logits = (0..<count).map { _ in Float(random.next() % 64) / (round % 3 == 0 ? 3 : 9) }
            if round % 5 == 0 { logits[0] = -.infinity }
            guard logits.contains(where: { $0.isFinite }) else { continue }
            var parameters = SamplingParameters()
            parameters.temperature = [0.3, 1, 2.5][round % 3]
            parameters.topK = [0, 1, 5, 100, 5000][round % 5]
            parameters.topP = [1, 0.9, 0.5, 0][round % 4]
            parameters.minP = [0, 0.05, 0.4][round / 2 % 3]
            parameters.seed = random.next()
            parameters.position = UInt64(round)
            let expected = definition(logits, parameters)
            let token = try logits.withUnsafeMutableBufferPointer { try sampler.sample($0, parameters) }
            #expect(token.id == expected, "seed 77, round \(round), \(count) logits, \(parameters)")
        }
    }

    @Test func ordersAnyPartAsASortWould() {
        var random = SeededRandom(seed: 78)
        for round in 0..<200 {
            let all = (0..<1 + Int(random.next() % 300)).map {
                Candidate(id: UInt32($0), logit: Float(random.next() % 20))
            }
            let first = Int(random.next() % UInt64(all.count))
            let count = Int(random.next() % UInt64(all.count - first + 1))
            var ordered = all
            ordered.order(from: first, count: count)
            let sorted = all[first...].sorted { $0.precedes($1) }
            #expect(ordered[first..<first + count].map(\.id) == sorted[..<count].map(\.id), "seed 78, round \(round)")
            #expect(ordered.prefix(first).map(\.id) == all.prefix(first).map(\.id))
        }
    }
}
