import Scheduling
import Serving
import StatePools
import Testing

@Suite struct SchedulerTests {
    @Test func promptIsCutAtMultiplesOfSixtyFourAndSamplesOnce() {
        var scheduler = makeScheduler()
        #expect(scheduler.enter(1, prompt: 300, maximum: 4) == .admitted)
        var ranges: [Range<Int>] = []
        var samples = 0
        for _ in 0..<4 {
            let plan = scheduler.planStep(now: 0)
            ranges += plan.map(\.positions)
            samples += plan.filter(\.samples).count
            scheduler.complete(plan)
        }
        #expect(ranges == [0..<128, 128..<256, 256..<300, 300..<301])
        #expect(samples == 2)
    }

    @Test func decodeRowsComeFirst() {
        var scheduler = makeScheduler()
        _ = scheduler.enter(1, prompt: 5, maximum: 10)
        scheduler.run()
        _ = scheduler.enter(2, prompt: 200, maximum: 10)
        let plan = scheduler.planStep(now: 0)
        #expect(plan.map(\.id) == [1, 2])
        #expect(plan[0].positions == 5..<6 && !plan[0].isPrefill)
        #expect(plan[1].positions == 0..<128 && plan[1].isPrefill)
    }

    @Test func aLongPromptDoesNotStarveAShortOne() {
        var scheduler = makeScheduler(pages: 200)
        _ = scheduler.enter(1, prompt: 8000, maximum: 4)
        scheduler.run()
        _ = scheduler.enter(2, prompt: 100, maximum: 4)
        let plan = scheduler.planStep(now: 0)
        #expect(plan.first { $0.id == 2 }?.positions == 0..<100, "the short prompt is through in its first step")
        #expect(plan.first { $0.id == 2 }?.samples == true)
        #expect(plan.first { $0.id == 1 }?.positions == 128..<192, "and the long one still moves")
    }

    @Test func everyPromptGetsItsTurnWhenThereAreMoreThanAStepHolds() {
        var limits = SchedulerLimits(rowsPerStep: 128, prefillChunk: 128, running: 6, waiting: 8)
        limits.rowsPerStep = 128
        var scheduler = Scheduler(limits: limits, pools: StatePools(slotCount: 6, pageCount: 100))
        for id in 1...6 { _ = scheduler.enter(UInt64(id), prompt: 640, maximum: 4) }
        var served: [UInt64] = []
        for _ in 0..<3 { served += scheduler.run().map(\.id) }
        #expect(Set(served) == [1, 2, 3, 4, 5, 6] && served.count == 6)
    }

    @Test func aLongPromptAddsABoundedNumberOfRowsToARunningStreamsStep() {
        var limits = SchedulerLimits(rowsPerStep: 2048, prefillChunk: 1024, running: 4, waiting: 8)
        limits.prefillBesideDecode = 128
        var scheduler = Scheduler(limits: limits, pools: StatePools(slotCount: 4, pageCount: 400))
        _ = scheduler.enter(1, prompt: 64, maximum: 100)
        scheduler.run()
        for id in 2...4 { _ = scheduler.enter(UInt64(id), prompt: 6000, maximum: 4) }
        for _ in 0..<20 {
            let plan = scheduler.run()
            #expect(plan.first?.id == 1, "the stream decodes in every step")
            #expect(plan.dropFirst().reduce(0) { $0 + $1.positions.count } <= 128)
        }
        scheduler.remove(id: 1)
        #expect(scheduler.run().reduce(0) { $0 + $1.positions.count } > 1024, "alone, prompts use the whole step")
    }

    @Test func waitsForMemoryAndReleasesIt() {
        var scheduler = makeScheduler(slots: 2, pages: 4)
        #expect(scheduler.enter(1, prompt: 100, maximum: 28) == .admitted)
        #expect(scheduler.enter(2, prompt: 100, maximum: 28) == .admitted)
        #expect(scheduler.enter(3, prompt: 100, maximum: 28) == .deferred(.atLimit(2)))
        scheduler.remove(id: 1)
        scheduler.run()
        #expect(scheduler.runningCount == 2 && scheduler.waitingCount == 0)
        scheduler.remove(id: 2)
        scheduler.remove(id: 3)
        #expect(scheduler.pools.slotsInUse == 0 && scheduler.pools.pagesInUse == 0 && !scheduler.hasWork)
    }

    @Test func refusesWithTheLimit() {
        var scheduler = makeScheduler(slots: 1, pages: 4, waiting: 1)
        #expect(scheduler.enter(1, prompt: 250, maximum: 7) == .rejected(.neverFits(tokens: 257, limit: 256)))
        #expect(scheduler.enter(1, prompt: .max, maximum: 7) == .rejected(.neverFits(tokens: .max, limit: 256)))
        #expect(
            scheduler.enter(1, prompt: 0, maximum: 7).isInvalid && scheduler.enter(1, prompt: 1, maximum: 0).isInvalid)
        #expect(scheduler.enter(1, prompt: 1, generated: 9, maximum: 8).isInvalid)
        #expect(scheduler.enter(2, prompt: 1, maximum: 1) == .admitted)
        #expect(scheduler.enter(2, prompt: 1, maximum: 1) == .rejected(.duplicate(2)))
        #expect(scheduler.enter(3, prompt: 1, maximum: 1) == .deferred(.atLimit(1)))
        #expect(scheduler.enter(4, prompt: 1, maximum: 1) == .rejected(.queueFull(limit: 1)))
        #expect(scheduler.waitingCount == 1 && scheduler.runningCount == 1)
    }

    @Test func waitingEndsAtItsTimeLimit() {
        var limits = SchedulerLimits(rowsPerStep: 200, prefillChunk: 128, running: 1, waiting: 8)
        limits.waitMicroseconds = 1000
        var scheduler = Scheduler(limits: limits, pools: StatePools(slotCount: 1, pageCount: 4))
        _ = scheduler.enter(1, prompt: 1, maximum: 1)
        _ = scheduler.submit(Request(id: 2, promptCount: 1, maximumTokens: 1), now: 300)
        #expect(scheduler.nextExpiry == 1300)
        _ = scheduler.takeEvents()
        _ = scheduler.planStep(now: 1299)
        #expect(scheduler.takeEvents().isEmpty)
        _ = scheduler.planStep(now: 1300)
        #expect(scheduler.takeEvents() == [.expired(id: 2)], "who runs does not expire")
        #expect(scheduler.nextExpiry == nil && scheduler.runningCount == 1)
    }

    @Test func higherPriorityEntersFirst() {
        var scheduler = makeScheduler(slots: 1)
        _ = scheduler.enter(1, prompt: 1, maximum: 1)
        for (id, priority) in [(2, 0), (3, 5), (4, 5), (5, -1)] {
            _ = scheduler.submit(
                Request(id: UInt64(id), promptCount: 1, maximumTokens: 1, priority: priority), now: 0)
        }
        var order: [UInt64] = []
        for _ in 0..<5 {
            let ids = scheduler.run().map(\.id)
            order += ids
            for id in ids { scheduler.remove(id: id) }
        }
        #expect(order == [1, 3, 4, 2, 5])
    }

    @Test func aLargeRequestIsPassedOverOnlySoOften() {
        var limits = SchedulerLimits(rowsPerStep: 200, prefillChunk: 128, running: 8, waiting: 64)
        limits.passesOver = 3
        limits.expectedGrowth = 1
        var scheduler = Scheduler(limits: limits, pools: StatePools(slotCount: 8, pageCount: 4))
        #expect(scheduler.enter(1, prompt: 60, maximum: 4) == .admitted)
        #expect(scheduler.enter(2, prompt: 250, maximum: 6) == .deferred(.noMemory(.noPages(needed: 4, free: 3))))
        for id in 3...5 {
            #expect(scheduler.enter(UInt64(id), prompt: 60, maximum: 4) == .admitted)
            scheduler.remove(id: UInt64(id))
        }
        #expect(scheduler.enter(6, prompt: 60, maximum: 4) == .deferred(.behindOthers))
        scheduler.remove(id: 1)
        scheduler.run()
        #expect(scheduler.takeEvents().admitted.contains(2))
    }

    /// A stream that ran for longer than anyone may wait has not waited when it loses its memory.
    @Test func whoIsPreemptedBeginsToWaitThen() {
        var limits = SchedulerLimits(rowsPerStep: 200, prefillChunk: 128, running: 2, waiting: 8)
        limits.waitMicroseconds = 1000
        limits.expectedGrowth = 0
        var scheduler = Scheduler(limits: limits, pools: StatePools(slotCount: 2, pageCount: 2))
        for id in 1...2 { _ = scheduler.enter(UInt64(id), prompt: 63, maximum: 60) }
        for time in 0..<3 { scheduler.complete(scheduler.planStep(now: UInt64(5000 + time))) }
        #expect(scheduler.takeEvents().preempted == [2])
        _ = scheduler.planStep(now: 5900)
        #expect(scheduler.waitingCount == 1 && scheduler.takeEvents().isEmpty)
        #expect(scheduler.nextExpiry.map { $0 > 5900 } == true)
    }

    /// One cancelled in mid-step: its memory is quarantined, not reused, until the step is over.
    @Test func aRequestCancelledInAStepKeepsItsMemoryUntilTheStepIsCompleted() {
        var scheduler = makeScheduler(slots: 1, pages: 2)
        _ = scheduler.enter(1, prompt: 100, maximum: 20)
        let plan = scheduler.planStep(now: 0)
        #expect(scheduler.remove(id: 1) == .quarantined(holds: 1))
        #expect(scheduler.enter(2, prompt: 100, maximum: 20) == .deferred(.noMemory(.noPages(needed: 2, free: 0))))
        #expect(scheduler.planStep(now: 0).isEmpty)
        scheduler.complete(plan)
        #expect(scheduler.pools.pages[.quarantined] == 0)
        #expect(scheduler.planStep(now: 0).map(\.id) == [2])
    }

    @Test func completingAStepTwiceAdvancesNothing() {
        var scheduler = makeScheduler()
        _ = scheduler.enter(1, prompt: 300, maximum: 4)
        let plan = scheduler.planStep(now: 0)
        scheduler.complete(plan)
        let next = scheduler.planStep(now: 0)
        scheduler.complete(plan)
        #expect(scheduler.pools.staleHolds == 1)
        #expect(scheduler.planStep(now: 0).isEmpty, "still in the second step")
        scheduler.complete(next)
        #expect(scheduler.planStep(now: 0).map(\.positions) == [256..<300])
    }

    @Test func twoBatchesMayBeInFlight() {
        var scheduler = makeScheduler()
        _ = scheduler.enter(1, prompt: 10, maximum: 9)
        let first = scheduler.planStep(now: 0)
        _ = scheduler.enter(2, prompt: 20, maximum: 9)
        let second = scheduler.planStep(now: 0)
        #expect(first.map(\.id) == [1] && second.map(\.id) == [2])
        scheduler.complete(second)
        scheduler.complete(first)
        #expect(Set(scheduler.planStep(now: 0).map(\.id)) == [1, 2])
    }
}

func makeScheduler(slots: Int = 4, pages: Int = 64, waiting: Int = 8, growth: Double = 0.5) -> Scheduler {
    var limits = SchedulerLimits(rowsPerStep: 200, prefillChunk: 128, running: slots, waiting: waiting)
    limits.expectedGrowth = growth
    return Scheduler(limits: limits, pools: StatePools(slotCount: slots, pageCount: pages))
}

extension Scheduler {
    mutating func enter(
        _ id: UInt64, prompt: Int, generated: Int = 0, maximum: Int, part: Part = .both
    ) -> Admission {
        submit(
            Request(
                id: id, promptCount: prompt, generatedCount: generated, maximumTokens: maximum, part: part), now: 0)
    }

    @discardableResult
    mutating func run() -> [StepEntry] {
        let plan = planStep(now: 0)
        complete(plan)
        return plan
    }
}

extension Admission {
    var isInvalid: Bool { if case .rejected(.invalid) = self { true } else { false } }
}

extension [SchedulerEvent] {
    var admitted: [UInt64] {
        compactMap { if case .admitted(let id, _, _) = $0 { id } else { nil } }
    }

    var preempted: [UInt64] {
        compactMap { if case .preempted(let id) = $0 { id } else { nil } }
    }
}
