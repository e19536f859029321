import Numerics
import Sampling
import Serving
import TestSupport
import Testing

/// Drawing must not notice that only the candidates that can be kept are put in order.
@Suite struct PartialSelectionTests {
    /// What the filters mean, with everything sorted.
    private func definition(_ logits: [Float], _ row: SampleRow) -> UInt32 {
        let p = row.sampling
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
        var left = CounterRandom.uniform(seed: p.seed, position: row.position) * weights.reduce(0, +)
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
            var row = SampleRow()
            row.sampling.temperature = [0.3, 1, 2.5][round % 3]
            row.sampling.topK = [0, 1, 5, 100, 5000][round % 5]
            row.sampling.topP = [1, 0.9, 0.5, 0][round % 4]
            row.sampling.minP = [0, 0.05, 0.4][round / 2 % 3]
            row.sampling.seed = random.next()
            row.position = UInt64(round)
            let expected = definition(logits, row)
            let token = try logits.withUnsafeMutableBufferPointer { try sampler.sample($0, row) }
            #expect(token.id == expected, "seed 77, round \(round), \(count) logits, \(row)")
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
