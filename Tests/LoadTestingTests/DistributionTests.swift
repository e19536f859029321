import LoadTesting
import Testing

struct DistributionTests {
    /// Ranks by hand: ten samples, so the p-th percentile lies at rank p/100 · 9.
    @Test func percentilesAreExactlyInterpolated() {
        let values = Distribution([9, 1, 8, 2, 7, 3, 6, 4, 5, 20])
        #expect(values.sorted == [1, 2, 3, 4, 5, 6, 7, 8, 9, 20])
        #expect(values.percentile(0) == 1)
        #expect(values.median == 5.5)
        #expect(abs(values.percentile(90) - (9 + 0.1 * 11)) < 1e-12)
        #expect(abs(values.percentile(95) - (9 + 0.55 * 11)) < 1e-12)
        #expect(abs(values.percentile(99) - (9 + 0.91 * 11)) < 1e-12)
        #expect(values.percentile(100) == 20 && values.maximum == 20)
        #expect(values.mean == 6.5)
        // the squared deviations add up to 262.5
        #expect(abs(values.standardDeviation - 26.25.squareRoot()) < 1e-12)
    }

    @Test func oneSampleIsEveryPercentileAndNoneIsZero() {
        #expect([0, 50, 99, 100].allSatisfy { Distribution([4]).percentile($0) == 4 })
        let none = Distribution([])
        #expect(none.mean == 0 && none.median == 0 && none.maximum == 0 && none.standardDeviation == 0)
    }

    @Test func latenciesFollowTheFieldsDefinitions() {
        var record = RequestRecord(index: 0, due: 500, sent: 1000, inputTokens: 7)
        record.add(tokens: 1, at: 11_000)
        record.add(tokens: 2, at: 15_000)
        record.add(tokens: 1, at: 21_000)
        record.ended = 22_000
        #expect(record.timeToFirstToken == 10)
        #expect(record.latency == 21)
        #expect(record.gaps == [4, 6])
        #expect(record.outputTokens == 4)
        #expect(record.timePerOutputToken == (21 - 10) / 3.0)
        #expect(record.queueTime == 0.5)
    }

    @Test func aServiceLevelIsReadAndKeptAtItsBound() throws {
        let levels = try ServiceLevel.list("ttft:10 tpot:3.5,e2e:21")
        #expect(levels.map(\.description) == ["ttft:10", "tpot:3.5", "e2el:21"])
        var record = RequestRecord(index: 0, due: 0, sent: 0, inputTokens: 1)
        record.add(tokens: 1, at: 10_000)
        record.ended = 21_000
        #expect(levels.map { $0.isKept(by: record) } == [true, true, true])
        record.add(tokens: 1, at: 20_000)
        #expect(levels.map { $0.isKept(by: record) } == [true, false, true])
        record.ended = 21_001
        #expect(!levels[2].isKept(by: record))
        for bad in ["ttft", "ttft:", "ttft:0", "ttft:-1", "ttft:nan", "ttft:inf", "x:1", "ttft:1 ttft:2", "ttft:1:2"] {
            #expect(throws: LoadError.self, "\(bad)") { try ServiceLevel.list(bad) }
        }
    }
}
