import Scheduling
import Serving
import StatePools
import Testing

@Suite struct StepPacerTests {
    @Test func mixedStepsStayNearDecodeSteps() {
        var pacer = StepPacer()
        #expect(pacer.prefillRows(limit: 512) == 512, "who tells it nothing gets the limit")
        for _ in 0..<40 { pacer.record(decodeRows: 8, prefillRows: 0, microseconds: 4000) }
        #expect(pacer.prefillRows(limit: 512) == 64, "what a prompt row costs is not known yet")
        for _ in 0..<40 { pacer.record(decodeRows: 8, prefillRows: 512, microseconds: 4000 + 512 * 20) }
        #expect(pacer.prefillRows(limit: 512) == 128, "0.75 · 4000 / 20 = 150 rows, in blocks of 64")
        for _ in 0..<80 { pacer.record(decodeRows: 8, prefillRows: 64, microseconds: 1 << 40) }
        #expect(pacer.prefillRows(limit: 512) == 64, "prompts always move")
    }

    /// Rows it allows next, by what it was told before (nothing, decode rows, prompt rows at 20 µs, both) and then (a step
    /// without a duration, decode rows, prompt rows, both).
    @Test func everyStateAnswersEveryStep() {
        typealias Step = (decodeRows: Int, prefillRows: Int, microseconds: UInt64)
        let steps: [Step] = [(8, 0, 4000), (0, 512, 10240), (8, 512, 14240)]
        let rows: [(told: [Step], allowed: [Int])] = [
            ([], [512, 64, 0, 0]), ([steps[0]], [64, 64, 128, 128]), ([steps[1]], [0, 128, 0, 0]),
            ([steps[0], steps[2]], [128, 128, 128, 128]),
        ]
        for (number, (told, allowed)) in rows.enumerated() {
            for (step, wanted) in zip([(8, 512, 0)] + steps, allowed) {
                var pacer = StepPacer()
                for (decodeRows, prefillRows, microseconds) in told + [step] {
                    pacer.record(decodeRows: decodeRows, prefillRows: prefillRows, microseconds: microseconds)
                }
                #expect(pacer.prefillRows(limit: 512) == wanted, "row \(number), \(step)")
                #expect(wanted > 0 || pacer.prefillRows(limit: 512) == 64, "never two steps without prompts")
            }
        }
    }

    @Test func stepsWithoutDurationTeachNothing() {
        var pacer = StepPacer()
        for rows in 0..<9 { pacer.record(decodeRows: 8, prefillRows: rows, microseconds: 0) }
        #expect(pacer == StepPacer())
        #expect(pacer.prefillRows(limit: 512) == 512)
    }

    @Test func aStepWithoutPromptsMeasuresAndNeverTwiceInARow() {
        var pacer = StepPacer()
        pacer.record(decodeRows: 0, prefillRows: 512, microseconds: 10_000)
        #expect(pacer.prefillRows(limit: 512) == 0)
        #expect(pacer.prefillRows(limit: 512) == 64, "though nothing was reported meanwhile")
        pacer.record(decodeRows: 8, prefillRows: 0, microseconds: 4000)
        for _ in 0..<256 { pacer.record(decodeRows: 8, prefillRows: 64, microseconds: 5000) }
        #expect(pacer.prefillRows(limit: 512) == 0, "the measure is renewed")
        pacer.record(decodeRows: 8, prefillRows: 0, microseconds: 4000)
        #expect(pacer.prefillRows(limit: 512) > 0)
    }

    /// Eight streams decode, then prompts of 4096 tokens arrive, in virtual time: a step takes 4 ms, 100 µs per decode row
    /// and `cost` µs per prompt row. From the first step on, no stream waits twice its usual time for a token.
    @Test(arguments: [5, 20, 60] as [UInt64])
    func longPromptsDoNotStretchTheGapOfRunningStreams(cost: UInt64) {
        let limits = SchedulerLimits(rowsPerStep: 1024, prefillChunk: 512, running: 16, waiting: 16)
        var scheduler = Scheduler(limits: limits, pools: StatePools(slotCount: 16, pageCount: 1024))
        for id in 1...8 as ClosedRange<UInt64> { _ = scheduler.enter(id, prompt: 64, maximum: 4000) }
        var gaps: [UInt64] = []
        var steps = 0
        var throughAt: Int?
        for step in 0..<600 {
            if step == 200 {
                for id in 9...10 as ClosedRange<UInt64> { _ = scheduler.enter(id, prompt: 4096, maximum: 1000) }
            }
            let plan = scheduler.planStep(now: 0)
            let prompts = plan.filter(\.isPrefill).reduce(0) { $0 + $1.positions.count }
            let took = 4000 + 100 * UInt64(plan.count { !$0.isPrefill }) + cost * UInt64(prompts)
            scheduler.complete(plan, microseconds: took)
            if step >= 200 {
                gaps.append(took)
                steps += plan.contains { $0.id == 1 } ? 1 : 0
                if plan.contains(where: { $0.id == 9 && $0.samples }), throughAt == nil { throughAt = step }
            }
        }
        let median = gaps.sorted()[gaps.count / 2]
        #expect(steps == 400, "the streams are in every step")
        #expect((gaps.max() ?? 0) <= 2 * median, "median \(median) µs, longest \(gaps.max() ?? 0) µs")
        #expect(throughAt != nil, "and the prompts get through")
    }
}
