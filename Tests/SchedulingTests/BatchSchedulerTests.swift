import Scheduling
import StatePools
import Testing

@Suite struct BatchSchedulerTests {
    private func scheduler(slots: Int = 4, pages: Int = 64, waiting: Int = 8) -> BatchScheduler {
        BatchScheduler(
            limits: SchedulerLimits(rowsPerStep: 200, prefillChunk: 128, running: slots, waiting: waiting),
            pools: StatePools(slotCount: slots, pageCount: pages))
    }

    @Test func promptIsCutAtMultiplesOfSixtyFourAndSamplesOnce() throws {
        var scheduler = scheduler()
        try scheduler.submit(id: 1, promptTokens: 300, maximumTokens: 4)
        var ranges: [Range<Int>] = []
        var samples = 0
        for _ in 0..<4 {
            let plan = scheduler.planStep()
            ranges += plan.map(\.positions)
            samples += plan.filter(\.samples).count
            scheduler.complete(plan)
        }
        #expect(ranges == [0..<128, 128..<256, 256..<300, 300..<301])
        #expect(samples == 2)
    }

    @Test func decodeRowsComeFirst() throws {
        var scheduler = scheduler()
        try scheduler.submit(id: 1, promptTokens: 5, maximumTokens: 10)
        scheduler.complete(scheduler.planStep())
        try scheduler.submit(id: 2, promptTokens: 200, maximumTokens: 10)
        let plan = scheduler.planStep()
        #expect(plan.map(\.id) == [1, 2])
        #expect(plan[0].positions == 5..<6 && !plan[0].isPrefill)
        #expect(plan[1].positions == 0..<128 && plan[1].isPrefill)
    }

    @Test func waitsForMemoryAndReleasesIt() throws {
        var scheduler = scheduler(slots: 2, pages: 4)
        for id in 1...3 { try scheduler.submit(id: UInt64(id), promptTokens: 100, maximumTokens: 28) }
        _ = scheduler.planStep()
        #expect(scheduler.runningCount == 2 && scheduler.waitingCount == 1)
        scheduler.remove(id: 1)
        _ = scheduler.planStep()
        #expect(scheduler.runningCount == 2 && scheduler.waitingCount == 0)
        scheduler.remove(id: 2)
        scheduler.remove(id: 3)
        #expect(scheduler.pools.slotsInUse == 0 && scheduler.pools.pagesInUse == 0)
    }

    @Test func refusesWithTheLimit() throws {
        var scheduler = scheduler(pages: 4, waiting: 1)
        #expect(throws: AdmissionRefusal.neverFits(tokens: 257, limit: 256)) {
            try scheduler.submit(id: 1, promptTokens: 250, maximumTokens: 7)
        }
        #expect(throws: AdmissionRefusal.neverFits(tokens: .max, limit: 256)) {
            try scheduler.submit(id: 1, promptTokens: .max, maximumTokens: 7)
        }
        try scheduler.submit(id: 2, promptTokens: 1, maximumTokens: 1)
        #expect(throws: AdmissionRefusal.queueFull(limit: 1)) {
            try scheduler.submit(id: 3, promptTokens: 1, maximumTokens: 1)
        }
    }
}
