import DeploymentModel
import LoadTesting
import Scheduling
import ServingSimulator
import Testing

@Suite struct ServingSimulationTests {
    private func run(_ scenario: ServingScenario) -> ServingResult {
        var simulation = ServingSimulation(scenario)
        return simulation.run()
    }

    /// One request alone: its times are the sum of its steps.
    @Test func oneRequestTakesItsSteps() throws {
        let result = run(colocated(closedLoop(1, input: 512, output: 5, concurrency: 1)))
        let record = try #require(result.records.first)
        // Two chunks of 256 rows at 10 µs each and 1 ms per step; then four steps of one row at 20 µs.
        #expect(record.outputTimes == [7120, 8140, 9160, 10180, 11200])
        #expect(record.ended == 11200 && record.outcome == .completed && record.inputTokens == 512)
        let steps = result.slices[0].steps
        #expect(steps[.prefill]?.count == 2 && steps[.prefill]?.prefillRows == 512)
        #expect(steps[.decode]?.count == 4 && steps[.decode]?.decodeRows == 4)
        #expect(steps[.decode]?.cost[.host] == 4_000_000_000)
        #expect(result.slices[0].peakSlots == 1 && result.slices[0].peakPages == 9)
        #expect(result.slices[0].busyNanoseconds == 11_200_000 && result.nanoseconds == 11_200_000)
    }

    @Test(arguments: 1...12 as ClosedRange<UInt64>)
    func everyRequestGetsItsTokensAndMemoryComesBack(seed: UInt64) {
        let load = closedLoop(60, ratio: 0.2, concurrency: 12, cancels: 0.3, seed: seed)
        let link = TransferLink(
            bytesPerSecond: 1e8, latencyNanoseconds: 50_000, bytesPerRequest: 100_000, bytesPerToken: 100)
        for scenario in [
            colocated(load), colocated(load, slots: 2, pages: 30, policy: .mixed),
            disaggregated(load, link: link), disaggregated(load, slots: 3, pages: 30, link: link),
        ] {
            let result = run(scenario)
            #expect(result.records.map(\.index) == Array(0..<60), "seed \(seed)")
            for record in result.records {
                let asked = load.workload.lengths(at: record.index).output
                let cancel = load.cancellation.tokens(index: record.index, outputTokens: asked)
                #expect(record.outputTokens == cancel ?? asked, "seed \(seed), request \(record.index)")
                #expect(record.outcome == (cancel == nil ? .completed : .cancelled), "seed \(seed)")
                #expect(record.outputTimes == record.outputTimes.sorted(), "seed \(seed)")
            }
            for slice in result.slices { #expect(slice.usedAtEnd == 0, "seed \(seed): \(slice.name) keeps memory") }
        }
    }

    @Test func aRunIsAFunctionOfItsInputs() throws {
        let load = closedLoop(40, ratio: 0.3, concurrency: 9, cancels: 0.1, seed: 7)
        let scenario = colocated(load, timeline: 1000)
        let (one, two) = (run(scenario), run(scenario))
        #expect(one.records == two.records && one.operations == two.operations)
        #expect(one.timeline.chromeTrace() == two.timeline.chromeTrace())
        let other = run(colocated(closedLoop(40, ratio: 0.3, concurrency: 9, cancels: 0.1, seed: 8)))
        #expect(one.records != other.records)
    }

    /// What a run costs is counted rather than timed: it is in proportion to the tokens.
    @Test func workGrowsWithTheTokensAndNothingElse() {
        let sizes = [160, 320, 640].map { count in
            run(colocated(closedLoop(count, input: 512, output: 64, concurrency: 16))).operations
        }
        for count in [\OperationCounts.total, \.entries, \.steps, \.plans] {
            let (small, middle, large) = (sizes[0][keyPath: count], sizes[1][keyPath: count], sizes[2][keyPath: count])
            let ratio = Double(large - middle) / Double(middle - small)
            #expect(abs(ratio - 2) < 0.05, "\(sizes)")
        }
        let longer = run(colocated(closedLoop(160, input: 512, output: 128, concurrency: 16))).operations
        #expect(abs(Double(longer.entries) / Double(sizes[0].entries) - 2) < 0.05)
    }

    @Test func anArrivalCausedByAStepsEndComesTooLateForTheNext() throws {
        let result = run(colocated(closedLoop(3, input: 64, output: 90, ratio: 0.1, concurrency: 2), ranks: 1))
        let (third, others) = (result.records[2], result.records.prefix(2))
        #expect(third.sent == others.map(\.ended).min() && third.sent < others.map(\.ended).max() ?? 0)
        let own = 1 + 0.01 * Double(third.inputTokens)
        let wait = (third.timeToFirstToken ?? 0) - own
        #expect(abs(wait - 1.02) < 0.001, "it waits for the step of the other, which had been planned")
    }

    @Test func requestsDueTogetherLeaveOneAfterAnother() {
        var load = closedLoop(4, concurrency: 4)
        load.sendNanoseconds = 250_000
        let result = run(colocated(load))
        #expect(result.records.map(\.sent) == [0, 250, 500, 750])
    }

    @Test func anIdleSliceWaitsForTheRestOfABurst() {
        var load = closedLoop(4, input: 64, output: 2, concurrency: 4)
        load.sendNanoseconds = 250_000
        let apart = run(colocated(load, ranks: 1)).slices[0].steps[.prefill]
        var scenario = colocated(load, ranks: 1)
        scenario.gather(microseconds: 2000)
        let together = run(scenario)
        #expect(apart?.count == 2 && together.slices[0].steps[.prefill]?.count == 1)
        // The last of four arrives at 1000 µs, and nothing follows for 2000.
        #expect(together.records.allSatisfy { $0.outputTimes.first == 1000 + 2000 + 1000 + 256 * 10 })
    }

    @Test func anOpenLoopArrivesWhenItIsDue() {
        var load = closedLoop(50, input: 64, output: 4, concurrency: 4096)
        load.due = ArrivalProcess(.constant(100), seed: 3).times(count: 50)
        let result = run(colocated(load))
        #expect(result.records.map(\.sent) == load.due)
        #expect(result.records.allSatisfy { $0.outcome == .completed })
    }

    @Test func whatCanNeverFitIsRefusedAndWhatFindsNoRoomInTimeExpires() {
        let huge = run(colocated(closedLoop(2, input: 30_000, output: 4)))
        #expect(huge.records.allSatisfy { $0.outcome != .completed && $0.outputTimes.isEmpty })
        var scenario = colocated(closedLoop(40, input: 512, output: 400, concurrency: 40), ranks: 1, slots: 2)
        scenario.placement.waitMicroseconds = 200_000
        let summary = LoadSummary(run(scenario).records, settings: LoadSettings())
        #expect(summary.completed > 0 && summary.failed > 0 && summary.completed + summary.failed == 40)
        #expect(summary.failures.map(\.kind) == ["no room in time"])
    }

    @Test func stateTakesItsTimeOnTheLinkAndTheFirstTokenWaitsForIt() throws {
        let load = closedLoop(1, input: 512, output: 3, concurrency: 1)
        let link = TransferLink(
            bytesPerSecond: 1e9, latencyNanoseconds: 100_000, bytesPerRequest: 1_000_000, bytesPerToken: 1000)
        let record = try #require(run(disaggregated(load, link: link)).records.first)
        // The first chunk's latents travel beside the second chunk; then 256 KB and the states, and the latency: 7120 + 256 + 1000 + 100.
        #expect(record.outputTimes == [8476, 9496, 10516])
    }

    @Test func statesOfPromptsThatEndTogetherQueueOnTheLink() {
        let load = closedLoop(4, input: 64, output: 2, concurrency: 4)
        let link = TransferLink(
            bytesPerSecond: 1e9, latencyNanoseconds: 0, bytesPerRequest: 10_000_000, bytesPerToken: 0)
        let result = run(disaggregated(load, link: link))
        let firsts = result.records.compactMap(\.outputTimes.first).sorted()
        #expect(
            firsts[1] - firsts[0] == 0 && firsts[2] - firsts[1] == 10_000, "each rank's link, one by one: \(firsts)")
        #expect(result.slices[0].links.map(\.sentBytes) == [20_000_000, 20_000_000])
    }

    @Test func theTimelineKeepsItsLimitAndSaysWhatItDropped() throws {
        let result = run(colocated(closedLoop(20), timeline: 10))
        #expect(result.timeline.dropped > 0)
        let text = String(decoding: result.timeline.chromeTrace(), as: UTF8.self)
        #expect(text.contains("\"name\":\"slice all\"") && text.contains("prefill_rows"))
    }
}
