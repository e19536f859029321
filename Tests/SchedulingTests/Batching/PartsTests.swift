import Scheduling
import Serving
import StatePools
import Testing

@Suite struct PartsTests {
    @Test func whatWasGeneratedBeforeIsPartOfALongerPrompt() {
        var scheduler = makeScheduler()
        _ = scheduler.enter(1, prompt: 100, generated: 3, maximum: 8)
        let entries = (0..<3).flatMap { _ in scheduler.run() }
        #expect(entries.map(\.positions) == [0..<103, 103..<104, 104..<105])
        #expect(entries.map(\.isPrefill) == [true, false, false])
        #expect(entries.map(\.samples) == [true, true, true], "only what is not known is sampled")
    }

    @Test func aRequestThatIsRebuiltIsCutLikeAnyPrompt() {
        var limits = SchedulerLimits(rowsPerStep: 200, prefillChunk: 128, running: 4, waiting: 8)
        limits.stepPolicy = .prefillFirst
        var scheduler = Scheduler(limits: limits, pools: StatePools(slotCount: 4, pageCount: 64))
        _ = scheduler.enter(1, prompt: 40, generated: 160, maximum: 300)
        let entries = (0..<3).flatMap { _ in scheduler.run() }
        #expect(entries.map(\.positions) == [0..<128, 128..<200, 200..<201])
        #expect(entries.map(\.samples) == [false, true, true])
    }

    @Test func prefillOnlyStopsAtTheLastPromptChunkAndKeepsItsStateUntilItIsHandedOut() throws {
        var scheduler = makeScheduler(slots: 1)
        _ = scheduler.enter(1, prompt: 200, maximum: 50, part: .prefill)
        let transfer = try #require(scheduler.takeEvents().transfer(of: 1))
        #expect(scheduler.pools.pages[.leased] == 4, "the prompt's pages and none for growth")
        #expect(scheduler.run().map(\.positions) == [0..<128])
        #expect(scheduler.run().map(\.samples) == [true])
        #expect(scheduler.takeEvents() == [.promptComplete(id: 1)])
        #expect(scheduler.run().isEmpty && scheduler.load.handingOut == 1)
        #expect(scheduler.remove(id: 1) == .quarantined(holds: 1), "what is still being sent is not reused")
        #expect(scheduler.endTransfer(transfer) && scheduler.pools.pagesInUse == 0 && scheduler.pools.slotsInUse == 0)
        #expect(scheduler.endTransfer(transfer) == false)
    }

    @Test func decodeOnlyReservesFirstAndEntersWithStateReceived() throws {
        var scheduler = makeScheduler()
        #expect(scheduler.enter(1, prompt: 200, maximum: 50, part: .decode) == .admitted)
        let transfer = try #require(scheduler.takeEvents().transfer(of: 1))
        #expect(scheduler.run().isEmpty && scheduler.load.receiving == 1)
        #expect(scheduler.received(id: 1, transfer: transfer) == true)
        let entries = (0..<2).flatMap { _ in scheduler.run() }
        #expect(entries.map(\.positions) == [200..<201, 201..<202])
        #expect(entries.allSatisfy { $0.samples && !$0.isPrefill })
        #expect(scheduler.received(id: 1, transfer: transfer) == false, "a second completion note changes nothing")
    }

    @Test func decodeOnlyCatchesUpFromWhereTheReceivedStateEnds() throws {
        var scheduler = makeScheduler()
        _ = scheduler.enter(1, prompt: 70, generated: 152, maximum: 200, part: .decode)
        let transfer = try #require(scheduler.takeEvents().transfer(of: 1))
        #expect(scheduler.received(id: 1, transfer: transfer) == true)
        let entries = (0..<3).flatMap { _ in scheduler.run() }
        #expect(entries.map(\.positions) == [70..<192, 192..<222, 222..<223], "cut at a multiple of 64")
        #expect(entries.map(\.samples) == [false, true, true])
    }

    @Test func aCancelledTransferIsQuarantinedAndItsLateCompletionIgnored() throws {
        var scheduler = makeScheduler(slots: 1)
        _ = scheduler.enter(1, prompt: 200, maximum: 50, part: .decode)
        let transfer = try #require(scheduler.takeEvents().transfer(of: 1))
        #expect(scheduler.remove(id: 1) == .quarantined(holds: 1))
        #expect(scheduler.enter(2, prompt: 1, maximum: 1) == .deferred(.noMemory(.noSlot(slots: 1))))
        #expect(scheduler.received(id: 1, transfer: transfer) == false)
        #expect(scheduler.run().map(\.id) == [2])
    }

    /// Decode that is full must not stop prompts from being computed elsewhere: reservations have a limit of their own.
    @Test func runningDecodesDoNotThrottleIncomingTransfers() {
        var limits = SchedulerLimits(rowsPerStep: 200, prefillChunk: 128, running: 1, waiting: 8)
        limits.receiving = 2
        var scheduler = Scheduler(limits: limits, pools: StatePools(slotCount: 8, pageCount: 64))
        #expect(scheduler.enter(1, prompt: 64, maximum: 8) == .admitted)
        #expect(scheduler.enter(2, prompt: 64, maximum: 8, part: .decode) == .admitted)
        #expect(scheduler.enter(3, prompt: 64, maximum: 8, part: .decode) == .admitted)
        #expect(scheduler.enter(4, prompt: 64, maximum: 8, part: .decode) == .deferred(.atLimit(2)))
    }

    /// Room promised to transfers under way counts as taken: over-admission would end in a hang.
    @Test func incomingTransfersAndFutureGrowthCountAtAdmission() {
        var scheduler = makeScheduler(pages: 6, growth: 1)
        #expect(scheduler.enter(1, prompt: 64, maximum: 128, part: .decode) == .admitted)
        #expect(scheduler.enter(2, prompt: 64, maximum: 64) == .admitted)
        #expect(
            scheduler.enter(3, prompt: 64, maximum: 64) == .deferred(.noMemory(.noPages(needed: 2, free: 1))),
            "deferred, not aborted")
    }
}

@Suite struct PreemptionTests {
    @Test func whenPagesRunOutTheNewestGivesWayAndIsRecomputed() {
        var scheduler = makeScheduler(slots: 2, pages: 3, growth: 0)
        _ = scheduler.enter(1, prompt: 64, maximum: 100)
        _ = scheduler.enter(2, prompt: 64, maximum: 100)
        _ = scheduler.takeEvents()
        scheduler.run()
        let plan = scheduler.run()
        #expect(plan.map(\.id) == [1], "one page was free for two requests that both need one more")
        #expect(
            scheduler.takeEvents().preempted.isEmpty, "the newer waits while a step in flight may end and free pages")
        for _ in 0..<63 { scheduler.run() }
        #expect(scheduler.run().map(\.positions) == [128..<129])
        #expect(scheduler.takeEvents().preempted == [2])
        #expect(scheduler.load.preemptions == 1 && scheduler.waitingCount == 1)
        scheduler.remove(id: 1)
        let again = (0..<2).flatMap { _ in scheduler.run() }
        #expect(again.map(\.positions) == [0..<65, 65..<66], "the token sampled before is not sampled again")
    }

    @Test func promisesAreTakenBackBeforeAnyoneIsPreempted() {
        var scheduler = makeScheduler(slots: 2, pages: 4, growth: 0.5)
        _ = scheduler.enter(1, prompt: 64, maximum: 120)
        _ = scheduler.enter(2, prompt: 64, maximum: 120)
        #expect(scheduler.pools.pages[.free] == 0)
        scheduler.run()
        for _ in 0..<65 { scheduler.run() }
        #expect(scheduler.takeEvents().preempted == [2], "both wrote their second page, one needs a third")
        #expect(scheduler.load.computing == 1)
    }

    @Test func higherPriorityIsPreemptedLast() {
        var scheduler = makeScheduler(slots: 2, pages: 3, growth: 0)
        _ = scheduler.submit(Request(id: 1, promptCount: 64, maximumTokens: 100), now: 0)
        _ = scheduler.submit(Request(id: 2, promptCount: 64, maximumTokens: 100, priority: 1), now: 0)
        for _ in 0..<70 { scheduler.run() }
        #expect(scheduler.takeEvents().preempted == [1])
    }

    @Test func aFailedStepIsRecomputedFromTheTokens() {
        var scheduler = makeScheduler()
        _ = scheduler.enter(1, prompt: 64, maximum: 100)
        _ = scheduler.enter(2, prompt: 64, maximum: 100, part: .prefill)
        #expect(scheduler.abandon(scheduler.planStep(now: 0)) == [2], "what was being sent cannot start again")
        #expect(scheduler.run().map(\.positions) == [0..<64])
        let failed = scheduler.planStep(now: 0)
        #expect(scheduler.abandon(failed).isEmpty && scheduler.abandon(failed).isEmpty)
        let again = (0..<2).flatMap { _ in scheduler.run() }
        #expect(again.map(\.positions) == [0..<65, 65..<66] && again.map(\.samples) == [true, true])
    }

    @Test func recomputationsAreLimited() {
        var scheduler = makeScheduler()
        _ = scheduler.enter(1, prompt: 64, maximum: 100)
        for _ in 0..<scheduler.limits.recomputations {
            #expect(scheduler.abandon(scheduler.planStep(now: 0)).isEmpty)
        }
        #expect(scheduler.abandon(scheduler.planStep(now: 0)) == [1] && !scheduler.hasWork)
    }
}

extension [SchedulerEvent] {
    func transfer(of wanted: UInt64) -> Hold? {
        for case .admitted(let id, _, let transfer) in self where id == wanted { return transfer }
        return nil
    }
}
