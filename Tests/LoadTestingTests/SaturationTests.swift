import LoadTesting
import Testing

struct SaturationTests {
    /// One server that takes `service` seconds per request, in order, with a spread of ±20 %; arrivals by `process`.
    private func records(
        _ count: Int, rate: Double, burstiness: Double = 1, service: Double, slots: Int, seed: UInt64
    ) -> [RequestRecord] {
        let due = ArrivalProcess(.constant(rate), burstiness: burstiness, seed: seed).times(count: count)
        var generator = SeededGenerator(seed: seed, stream: 99)
        var free = Array(repeating: UInt64(0), count: slots)
        return due.enumerated().map { index, time in
            let slot = free.indices.min { free[$0] < free[$1] } ?? 0
            let begin = max(time, free[slot])
            let length = UInt64(service * 1e6 * (0.8 + 0.4 * generator.unit()))
            free[slot] = begin + length
            var record = RequestRecord(index: index, due: time, sent: time, inputTokens: 1)
            record.add(tokens: 1, at: begin + length / 10)
            record.ended = begin + length
            return record
        }
    }

    @Test(arguments: 1...20) func aServerThatKeepsUpIsNotCalledSaturated(seed: Int) {
        let records = records(400, rate: 10, service: 0.3, slots: 5, seed: UInt64(seed))
        #expect(Saturation.judge(records) == .none, "seed \(seed)")
    }

    /// A Poisson process of 400 arrivals is too uneven for more than the verdict; even arrivals show the growth too.
    @Test(arguments: 1...20) func twiceTheCapacityIsCalledSaturatedAndItsGrowthIsRight(seed: Int) {
        let uneven = records(400, rate: 10, service: 1, slots: 5, seed: UInt64(seed))
        if case .over = Saturation.judge(uneven) {} else { Issue.record("not found in Poisson arrivals, seed \(seed)") }
        let records = records(400, rate: 10, burstiness: 100, service: 1, slots: 5, seed: UInt64(seed))
        guard case .over(let load, let wait) = Saturation.judge(records) else {
            Issue.record("not found, seed \(seed)")
            return
        }
        // ten arrive and five leave every second; every second of arrivals is two of work
        #expect((4.5...5.5).contains(load), "\(load), seed \(seed)")
        #expect((900...1100).contains(wait), "\(wait), seed \(seed)")
    }

    /// A steady load whose queue swung for seconds was once called over-saturated: neighbouring points of a queue
    /// are not independent. At 70 % and 150 % of the capacity.
    @Test func swingsAreRarelyTakenForGrowthAndGrowthIsRarelyMissed() {
        func verdicts(service: Double) -> Int {
            (1...100).filter { seed in
                let records = records(200, rate: 10, service: service, slots: 5, seed: UInt64(seed))
                if case .over = Saturation.judge(records) { return true }
                return false
            }.count
        }
        let (steady, over) = (verdicts(service: 0.35), verdicts(service: 0.75))
        #expect(steady <= 4, "at 70 % of the capacity")
        #expect(over >= 95, "at 150 % of the capacity")
    }

    @Test func littleIsNotJudged() {
        func isJudged(_ records: [RequestRecord]) -> Bool {
            if case .notJudged = Saturation.judge(records) { return false }
            return true
        }
        #expect(!isJudged(records(20, rate: 10, service: 1, slots: 1, seed: 1)))
        #expect(!isJudged(records(400, rate: 10_000, service: 0.01, slots: 5, seed: 1)))
        #expect(isJudged(records(400, rate: 10, service: 0.1, slots: 5, seed: 1)))
    }

    @Test func aTrendIsTheLeastSquaresLine() throws {
        let exact = try #require(Trend(x: [0, 1, 2, 3], y: [1, 3, 5, 7]))
        #expect(exact.slope == 2 && exact.intercept == 1 && exact.rises)
        // by hand: slope 2.5 / 5, residuals −0.5, 1, −0.5 and 0
        let noisy = try #require(Trend(x: [0, 1, 2, 3], y: [0, 2, 1, 2]))
        #expect(abs(noisy.slope - 0.5) < 1e-12 && abs(noisy.intercept - 0.5) < 1e-12)
        #expect(abs(noisy.significance - 0.5 / (1.5 / 2 / 5).squareRoot()) < 1e-12 && !noisy.rises)
        #expect(Trend(x: [1, 1, 1], y: [1, 2, 3]) == nil && Trend(x: [1, 2], y: [1, 2]) == nil)
    }

    @Test func inFlightIsCountedBetweenSendingAndEnd() {
        let records = [(0, 10), (5, 15), (10, 20)].enumerated().map { index, times in
            var record = RequestRecord(index: index, due: UInt64(times.0), sent: UInt64(times.0), inputTokens: 1)
            record.ended = UInt64(times.1)
            return record
        }
        let series = InFlightSeries(records)
        #expect(series.peak == 2)
        #expect(series.mean(from: 0, to: 20) == 1.5 && series.mean(from: 5, to: 15) == 2)
        #expect(series.mean(from: 15, to: 30) == 1.0 / 3)
    }
}
