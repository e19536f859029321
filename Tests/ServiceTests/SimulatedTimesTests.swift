import Checkpoint
import Emulation
import Foundation
import Testing

/// When the experts service simulates, and what it says until it has.
@Suite struct SimulatedTimesTests {
    private func simulation() throws -> LayerSimulation {
        let config = try Data(contentsOf: Executables.goldens.appendingPathComponent("base/config.json"))
        return try LayerSimulation(
            configuration: ModelConfiguration(json: config), weights: .bfloat16, slice: "v7x-4", devices: nil)
    }

    /// 64 rows of which nearly all go to one expert.
    private func skewed() throws -> LayerSimulation.Summary {
        let config = try Data(contentsOf: Executables.goldens.appendingPathComponent("base/config.json"))
        var pairs = Array(repeating: 1, count: try ModelConfiguration(json: config).expertCount)
        pairs[0] = 1000
        return LayerSimulation.Summary(rows: 64, pairsPerExpert: pairs)
    }

    @Test func unpreparedTimesAreUnknownUntilRealCallsPaidForThem() throws {
        let times = SimulatedTimes(try simulation())
        let summary = LayerSimulation.Summary(rows: 8, pairsPerExpert: [])
        // The first one is free: nothing was spent yet.
        #expect(times.time(summary, kernelNanoseconds: 0) == nil)
        #expect(times.counters["simulated_calls"] == 0)
    }

    @Test func commonSizesAreKnownFromTheStart() throws {
        let times = SimulatedTimes(try simulation())
        times.prepare(rows: 64)
        var last: Int64 = 0
        for rows in 1...64 {
            let time = try #require(
                times.time(LayerSimulation.Summary(rows: rows, pairsPerExpert: []), kernelNanoseconds: 0))
            #expect(time >= last, "\(rows) rows")
            last = time
        }
        #expect(times.counters["simulated_calls"] == 64)
        #expect(times.counters["simulating_nanoseconds"] == 0)
    }

    /// A skewed call has the time of a uniform one until simulating it is within a twentieth of the real calls' time.
    @Test func skewedCallsAreSimulatedOnceRealCallsPaidForIt() throws {
        let times = SimulatedTimes(try simulation())
        times.prepare(rows: 64)
        let uniform = LayerSimulation.Summary(rows: 64, pairsPerExpert: [])
        let skewed = try skewed()
        #expect(skewed.skew > 1 && skewed.rows == 64)
        let known = try #require(times.time(uniform, kernelNanoseconds: 0))
        let summaries = times.counters["simulated_summaries"]
        for _ in 0..<100 { #expect(times.time(skewed, kernelNanoseconds: 1_000) == known) }
        #expect(times.counters["simulated_summaries"] == summaries)
        let paid: Int64 = 60_000_000_000
        _ = times.time(skewed, kernelNanoseconds: paid)
        times.finishSimulating()
        #expect(times.counters["simulated_summaries"] != summaries)
        #expect(try #require(times.time(skewed, kernelNanoseconds: paid)) > known)
        let spent = times.counters["simulating_nanoseconds"] ?? 0
        #expect(spent > 0 && spent * 20 <= paid)
    }
}
