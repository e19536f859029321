import Scheduling
import Serving
import StatePools
import TestSupport
import Testing

@Suite struct RanksTests {
    private func makeGroup(_ policy: StepPolicy, ranks: Int = 4, slots: Int = 4, pages: Int = 64) -> Ranks {
        var limits = SchedulerLimits(rowsPerStep: 512, prefillChunk: 256, running: slots, waiting: 16)
        limits.stepPolicy = policy
        return Ranks(limits: limits, ranks: ranks, slotCount: slots, pageCount: pages)
    }

    private func spec(_ id: UInt64, prompt: Int = 128, maximum: Int = 8) -> Request {
        Request(id: id, promptCount: prompt, maximumTokens: maximum)
    }

    @Test func requestsAreSpreadOverRanksByWhatIsTakenThere() {
        var group = makeGroup(.mixed)
        for id in 1...4 { #expect(group.submit(spec(UInt64(id)), now: 0) == .admitted) }
        #expect((1...4).map { group.rank(of: UInt64($0)) } == [0, 1, 2, 3])
        group.remove(id: 3)
        _ = group.submit(spec(5), now: 0)
        #expect(group.rank(of: 5) == 2, "the rank that has room again")
        _ = group.submit(spec(6, prompt: 2000), now: 0)
        _ = group.submit(spec(7), now: 0)
        #expect(group.rank(of: 6) == 0 && group.rank(of: 7) == 1, "ties go round")
        _ = group.submit(spec(8), now: 0)
        _ = group.submit(spec(9), now: 0)
        _ = group.submit(spec(10), now: 0)
        #expect((8...10).map { group.rank(of: UInt64($0)) } == [3, 2, 1], "a long request counts by its tokens")
    }

    private enum State: CaseIterable { case absent, waiting, running, inFlight }

    /// What a rank with one slot answers of request 1, in every state of it.
    @Test func everyStateAnswersEveryEvent() {
        let duplicate = Admission.rejected(.duplicate(1))
        let table: [State: (admission: Admission, removal: ReleaseOutcome?, inQuarantine: Int)] = [
            .absent: (.admitted, nil, 0), .waiting: (duplicate, nil, 0), .running: (duplicate, .freed, 0),
            .inFlight: (duplicate, .quarantined(holds: 1), 1),
        ]
        for state in State.allCases {
            guard let wanted = table[state] else {
                Issue.record("\(state) has no row")
                continue
            }
            var ranks = makeGroup(.mixed, ranks: 1, slots: 1)
            let own = Request(id: 1, prompt: [5, 6], maximumTokens: 4)
            if state == .waiting { #expect(ranks.submit(spec(9), now: 0) == .admitted) }
            if state != .absent { _ = ranks.submit(own, now: 0) }
            if state == .inFlight { #expect(ranks.planStep(now: 0).entries.map(\.id) == [1]) }
            let isHere = state != .absent
            #expect(ranks.rank(of: 1) == (isHere ? 0 : nil) && ranks.waitingCount == (state == .waiting ? 1 : 0))
            var (submitted, appended, removed) = (ranks, ranks, ranks)
            #expect(submitted.submit(own, now: 0) == wanted.admission, "\(state)")
            #expect(appended.append(7, to: 1) == isHere, "\(state)")
            #expect(appended.request(1)?.generated == (isHere ? [7] : nil), "\(state)")
            #expect(removed.remove(id: 1) == wanted.removal && removed.rank(of: 1) == nil, "\(state)")
            #expect(removed.capacity.quarantinedRequests == wanted.inQuarantine, "\(state)")
            #expect(removed.remove(id: 1) == nil && !removed.append(7, to: 1), "\(state)")
        }
    }

    @Test func aRequestWaitsOnItsRankAndExpiresThere() {
        var limits = SchedulerLimits(rowsPerStep: 512, prefillChunk: 256, running: 1, waiting: 16)
        limits.waitMicroseconds = 100
        var group = Ranks(limits: limits, ranks: 2, slotCount: 1, pageCount: 64, firstRank: 6)
        for id in 1...4 { _ = group.submit(spec(UInt64(id)), now: 0) }
        #expect(group.waitingCount == 2 && group.runningCount == 2 && group.nextExpiry == 100)
        #expect(group.rank(of: 4) == 7)
        _ = group.planStep(now: 100)
        #expect(group.takeEvents().contains(.expired(id: 4)) && group.rank(of: 4) == nil)
        #expect(group.submit(spec(4), now: 100) == .deferred(.atLimit(1)), "its number is free again")
    }

    @Test func aPromptOnOneRankKeepsTheOthersDecodeRowsWaiting() {
        var group = makeGroup(.prefillFirst, ranks: 2)
        _ = group.submit(spec(1), now: 0)
        group.complete(group.planStep(now: 0))
        _ = group.submit(spec(2, prompt: 300), now: 0)
        var step = group.planStep(now: 0)
        #expect(step.ranks[0].isEmpty && step.ranks[1].map(\.positions) == [0..<256])
        group.complete(step)
        step = group.planStep(now: 0)
        #expect(step.ranks[0].isEmpty && step.ranks[1].map(\.positions) == [256..<300])
        group.complete(step)
        step = group.planStep(now: 0)
        #expect(step.ranks.map(\.count) == [1, 1] && step.entries.allSatisfy { !$0.isPrefill && $0.samples })
    }

    @Test func mixedRanksDecodeBesideAPrompt() {
        var group = makeGroup(.mixed, ranks: 2)
        _ = group.submit(spec(1), now: 0)
        group.complete(group.planStep(now: 0))
        _ = group.submit(spec(2, prompt: 300), now: 0)
        let step = group.planStep(now: 0)
        #expect(step.ranks.map(\.count) == [1, 1] && !step.ranks[0][0].isPrefill && step.ranks[1][0].isPrefill)
    }

    @Test func promptsFirstFillAStepInOrderOfArrival() {
        var group = makeGroup(.prefillFirst, ranks: 1)
        for (id, prompt) in [(1, 300), (2, 100), (3, 500)] {
            _ = group.submit(spec(UInt64(id), prompt: prompt), now: 0)
        }
        var plans: [[UInt64: Range<Int>]] = []
        for _ in 0..<4 {
            let step = group.planStep(now: 0)
            plans.append(Dictionary(uniqueKeysWithValues: step.entries.map { ($0.id, $0.positions) }))
            group.complete(step)
        }
        #expect(plans[0] == [1: 0..<256])
        #expect(
            plans[1] == [1: 256..<300, 2: 0..<100, 3: 0..<64], "what is left goes to the next, in whole GLA chunks")
        #expect(plans[2] == [3: 64..<320])
        #expect(plans[3] == [3: 320..<500])
    }

    @Test func holdsAndTransfersGoToTheRankTheyBelongTo() throws {
        var group = makeGroup(.mixed, ranks: 3)
        for id in 1...3 {
            _ = group.submit(
                Request(id: UInt64(id), promptCount: 64, maximumTokens: 4, part: .decode), now: 0)
        }
        var holds: [UInt64: Hold] = [:]
        for case .admitted(let id, _, let transfer?) in group.takeEvents() { holds[id] = transfer }
        #expect(holds.values.map(\.dpRank).sorted() == [0, 1, 2])
        #expect(group.planStep(now: 0).isEmpty, "nothing is computed before the state is there")
        for id in [1, 3] as [UInt64] { #expect(group.received(id: id, transfer: try #require(holds[id]))) }
        let second = try #require(holds[2])
        let ended = [group.endTransfer(second), group.endTransfer(second)]
        #expect(ended == [true, false])
        #expect(group.planStep(now: 0).entries.map(\.id) == [1, 3])
    }

    /// One rank of a group decides as a scheduler of its own does, whatever comes.
    @Test(arguments: 1...20 as ClosedRange<UInt64>)
    func aGroupOfOneIsAScheduler(seed: UInt64) {
        var generator = SeededRandom(seed: seed)
        var limits = SchedulerLimits(rowsPerStep: 400, prefillChunk: 192, running: 6, waiting: 12)
        limits.stepPolicy = Bool.random(using: &generator) ? .mixed : .prefillFirst
        var group = Ranks(limits: limits, slotCount: 7, pageCount: 30)
        var scheduler = Scheduler(limits: limits, pools: StatePools(slotCount: 7, pageCount: 30))
        for round in 0..<200 {
            if Int.random(in: 0..<4, using: &generator) == 0 {
                let request = Request(
                    id: UInt64(round), promptCount: Int.random(in: 1...600, using: &generator),
                    maximumTokens: Int.random(in: 1...100, using: &generator))
                #expect(group.submit(request, now: 0) == scheduler.submit(request, now: 0), "seed \(seed)")
            }
            if Int.random(in: 0..<9, using: &generator) == 0 {
                let id = UInt64(Int.random(in: 0...round, using: &generator))
                let outcomes = [group.remove(id: id), scheduler.remove(id: id)]
                #expect(outcomes[0] == outcomes[1], "seed \(seed)")
            }
            let step = group.planStep(now: 0)
            let plan = scheduler.planStep(now: 0)
            #expect(step.entries == plan && group.takeEvents() == scheduler.takeEvents(), "seed \(seed)")
            group.complete(step)
            scheduler.complete(plan)
        }
    }
}
