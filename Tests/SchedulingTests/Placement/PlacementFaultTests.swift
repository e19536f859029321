import Scheduling
import Serving
import TestSupport
import Testing

@Suite struct PlacementFaultTests {
    @Test func requestsOfADeadDecodeRankStartAgainElsewhere() {
        var controller = makeController(policy: .roundRobin)
        for id in 1...4 as ClosedRange<UInt64> { _ = controller.enter(id, prompt: 64, maximum: 64) }
        let victims = (1...4 as ClosedRange<UInt64>).filter { controller.placement(of: $0)?.decode == 2 }
        controller.lost(instance: 2, generation: 1, because: "connection reset", now: 10)
        let actions = controller.poll(now: 10)
        #expect(actions.restarted == victims && victims.count == 2)
        #expect(actions.placed == victims)
        for id in victims {
            #expect(controller.placement(of: id)?.decode == 3 && controller.placement(of: id)?.attempt == 1)
        }
        controller.lost(instance: 2, generation: 1, because: "again", now: 11)
        #expect(controller.poll(now: 11).isEmpty)
    }

    @Test func aDeadPrefillRankTakesOnlyPromptsThatWereNotThrough() {
        var controller = makeController(policy: .roundRobin)
        for id in 1...4 as ClosedRange<UInt64> { _ = controller.enter(id, prompt: 64, maximum: 64) }
        let onIt = (1...4 as ClosedRange<UInt64>).filter { controller.placement(of: $0)?.prefill == 0 }
        controller.firstToken(id: onIt[0], attempt: 0)
        controller.lost(instance: 0, generation: 1, because: "killed", now: 10)
        #expect(controller.poll(now: 10).restarted == [onIt[1]])
        #expect(controller.placement(of: onIt[1])?.prefill == 1)
        #expect(controller.loads.reduce(0) { $0 + $1.requests } == 7, "four decode, three prefill")
    }

    @Test func aRestartedRankHoldsNothingOfWhatWasPlacedOnIt() {
        var controller = PlacementController()
        controller.add(0, .both)
        _ = controller.enter(1, prompt: 64, maximum: 64)
        controller.add(0, .both, generation: 2)
        #expect(
            controller.poll(now: 0) == [
                .restart(id: 1, because: "rank-0 was restarted"),
                .place(id: 1, Placement(prefill: 0, decode: 0, attempt: 1)),
            ])
        controller.lost(instance: 0, generation: 1, because: "late note", now: 5)
        #expect(controller.poll(now: 5).isEmpty && controller.placedCount == 1)
        let old = InstanceDescription(
            id: 0, name: "rank-0", part: .both, capacity: Capacity(requests: 1, tokens: 64), generation: 1)
        #expect(controller.join(old, now: 6) == false)
    }

    @Test func lateReportsOfAnEarlierAttemptAreIgnored() {
        var controller = makeController()
        _ = controller.enter(1, prompt: 64, maximum: 64)
        let first = controller.placement(of: 1) ?? nowhere
        controller.broke(id: 1, attempt: 0, instance: first.prefill, because: "error", now: 0)
        #expect(controller.poll(now: 0).placed == [1])
        controller.broke(id: 1, attempt: 0, instance: first.decode, because: "late", now: 0)
        controller.firstToken(id: 1, attempt: 0)
        #expect(controller.poll(now: 0).isEmpty)
        #expect(controller.loads.map(\.requests).reduce(0, +) == 2, "still prefilling, once")
        #expect(controller.placement(of: 1)?.prefill != first.prefill, "not where it broke")
    }

    /// Retries have a budget: a request that breaks everywhere must not circle for ever.
    @Test func restartsAreLimited() {
        var controller = makeController()
        _ = controller.enter(1, prompt: 64, maximum: 64)
        for attempt in 0..<3 {
            controller.broke(id: 1, attempt: attempt, instance: nil, because: "poison", now: 0)
            #expect(controller.poll(now: 0).restarted == [1])
        }
        controller.broke(id: 1, attempt: 3, instance: nil, because: "poison", now: 0)
        #expect(controller.poll(now: 0) == [.failed(id: 1, because: "poison")])
        #expect(controller.loads.allSatisfy { $0.requests == 0 && $0.tokens == 0 })
    }

    @Test func aRestartedRequestIsPlacedBeforeThoseThatWait() {
        var controller = PlacementController()
        controller.add(0, .both, requests: 1)
        controller.add(1, .both, requests: 1)
        for id in 1...4 as ClosedRange<UInt64> { _ = controller.enter(id, prompt: 64, maximum: 64) }
        let victim = controller.placement(of: 1)?.decode == 0 ? UInt64(1) : 2
        controller.lost(instance: 0, generation: 1, because: "killed", now: 0)
        #expect(controller.poll(now: 0).restarted == [victim])
        controller.ended(id: victim == 1 ? 2 : 1)
        #expect(controller.poll(now: 0).placed == [victim])
    }

    @Test func aFailingRankIsLeftAloneUntilItsBreakerLetsAProbePass() {
        var limits = PlacementLimits()
        limits.breaker.failures = 2
        limits.restarts = 9
        var controller = PlacementController(limits: limits, policy: .roundRobin)
        controller.add(0, .both)
        controller.add(1, .both)
        for id in 1...4 as ClosedRange<UInt64> { _ = controller.enter(id, prompt: 64, maximum: 64) }
        for id in [1, 3] as [UInt64] { controller.broke(id: id, attempt: 0, instance: 0, because: "error", now: 0) }
        _ = controller.poll(now: 0)
        for id in 5...8 as ClosedRange<UInt64> {
            _ = controller.enter(id, prompt: 64, maximum: 64)
            #expect(controller.placement(of: id)?.decode == 1)
        }
        let probe = controller.submit(Request(id: 9, promptCount: 64, maximumTokens: 64), now: 5_000_000)
        #expect(probe == .admitted(Placement(prefill: 0, decode: 0, attempt: 0)))
        _ = controller.submit(Request(id: 10, promptCount: 64, maximumTokens: 64), now: 5_000_001)
        #expect(controller.placement(of: 10)?.decode == 1, "one probe at a time")
        controller.firstToken(id: 9, attempt: 0)
        _ = controller.submit(Request(id: 11, promptCount: 64, maximumTokens: 64), now: 5_000_002)
        #expect(controller.placement(of: 11)?.decode == 0)
    }

    /// A rank that died under its probe, and was back before anyone noticed, was left waiting for the probe's end for ever.
    @Test func aRankThatRestartsUnderItsProbeIsProbedAgain() {
        var limits = PlacementLimits()
        limits.breaker.failures = 1
        var controller = PlacementController(limits: limits)
        controller.add(0, .both)
        controller.lost(instance: 0, generation: 1, because: "killed", now: 0)
        controller.add(0, .both, generation: 2)
        let probe = controller.submit(Request(id: 1, promptCount: 64, maximumTokens: 64), now: 5_000_000)
        #expect(probe == .admitted(Placement(prefill: 0, decode: 0, attempt: 0)))
        controller.add(0, .both, generation: 3)
        let actions = controller.poll(now: 5_000_001)
        #expect(actions.restarted == [1] && actions.placed == [1], "it is the next probe")
    }

    /// A breaker that could let a probe pass, but has none to send, must not make its owner poll without end.
    @Test func whoPollsAtNextWakeDoesNotSpin() {
        var limits = PlacementLimits()
        limits.breaker.failures = 1
        limits.waitMicroseconds = 60_000_000
        var controller = PlacementController(limits: limits)
        controller.add(0, .both, requests: 1)
        controller.add(1, .both, requests: 1)
        for id in 1...3 as ClosedRange<UInt64> { _ = controller.enter(id, prompt: 64, maximum: 64) }
        controller.lost(instance: 0, generation: 1, because: "killed", now: 0)
        var now: UInt64 = 0
        var wakes: [UInt64] = []
        _ = controller.poll(now: now)
        while let next = controller.nextWake, wakes.count < 10 {
            now = next
            wakes.append(now)
            _ = controller.poll(now: now)
        }
        #expect(wakes == [5_000_000, 60_000_000], "once for the breaker, once for the two that wait")
    }

    @Test func aLeavingRankFinishesWhatItHasAndRetires() {
        var controller = PlacementController()
        controller.add(0, .both)
        controller.add(1, .both)
        _ = controller.enter(1, prompt: 64, maximum: 64)
        let rank = controller.placement(of: 1)?.decode ?? -1
        controller.leave(instance: rank)
        #expect(controller.poll(now: 0).isEmpty)
        _ = controller.enter(2, prompt: 64, maximum: 64)
        #expect(controller.placement(of: 2)?.decode == 1 - rank)
        controller.ended(id: 1)
        #expect(controller.poll(now: 0) == [.retired(instance: rank)] && controller.loads.count == 1)
    }

    /// Random requests, faults, restarts and late notes: the ledger is what the placements add up to, no rank is over
    /// its capacity, and when all are over it is empty.
    @Test(arguments: 1...30 as ClosedRange<UInt64>)
    func theLedgerIsWhatThePlacementsAddUpTo(seed: UInt64) {
        var run = PlacementModelRun(seed: seed)
        for step in 0..<2000 {
            run.perform()
            if let fault = run.fault() {
                Issue.record("seed \(seed) step \(step): \(fault)")
                return
            }
        }
        run.finish()
        #expect(run.fault() == nil, "seed \(seed)")
        #expect(run.controller.loads.allSatisfy { $0.requests == 0 && $0.tokens == 0 }, "seed \(seed)")
    }
}

private struct PlacementModelRun {
    private(set) var controller: PlacementController
    private var generator: SeededRandom
    private var specs: [UInt64: Request] = [:]
    private var isThrough: Set<UInt64> = []
    private var generations: [UInt64] = [1, 1, 1, 1, 1]
    private var now: UInt64 = 0
    private var nextID: UInt64 = 1

    init(seed: UInt64) {
        generator = SeededRandom(seed: seed)
        let policy = PlacementPolicy.allCases.randomElement(using: &generator) ?? .leastLoaded
        controller = makeController(policy: policy)
        controller.add(4, .both)
        for rank in 0...4 { join(rank) }
    }

    private mutating func join(_ rank: Int) {
        let parts: [Part] = [.prefill, .prefill, .decode, .decode, .both]
        _ = controller.join(
            InstanceDescription(
                id: rank, name: "rank-\(rank)", part: parts[rank], capacity: Capacity(requests: 5, tokens: 4096),
                generation: generations[rank]), now: now)
    }

    mutating func perform() {
        now += UInt64.random(in: 0..<400_000, using: &generator)
        let some = specs.keys.sorted().randomElement(using: &generator) ?? 0
        let rank = Int.random(in: 0...4, using: &generator)
        switch Int.random(in: 0..<20, using: &generator) {
        case 0...6: submit()
        case 7...10:
            if let placement = controller.placement(of: some) {
                let attempt = max(0, placement.attempt - Int.random(in: 0...1, using: &generator))
                controller.firstToken(id: some, attempt: attempt)
                if attempt == placement.attempt { isThrough.insert(some) }
            }
        case 11...14: end(some)
        case 15:
            controller.broke(
                id: some, attempt: Int.random(in: 0...3, using: &generator), instance: rank, because: "error", now: now)
        case 16: controller.lost(instance: rank, generation: generations[rank], because: "killed", now: now)
        case 17:
            generations[rank] += 1
            join(rank)
        default: join(rank)
        }
        obey(controller.poll(now: now))
    }

    private mutating func submit() {
        var spec = Request(
            id: nextID, promptCount: Int.random(in: 1...1500, using: &generator),
            maximumTokens: Int.random(in: 1...1000, using: &generator))
        let prefix = [UInt64.random(in: 0..<8, using: &generator)]
        spec.priority = Int.random(in: 0...1, using: &generator)
        nextID += 1
        if case .rejected = controller.submit(spec, prefix: prefix, now: now) { return }
        specs[spec.id] = spec
    }

    private mutating func end(_ id: UInt64) {
        controller.ended(id: id)
        specs[id] = nil
        isThrough.remove(id)
    }

    private mutating func obey(_ actions: [PlacementAction]) {
        for action in actions {
            switch action {
            case .place, .retired: break
            case .restart(let id, _): isThrough.remove(id)
            case .expired(let id, _), .failed(let id, _), .overBudget(let id, _):
                specs[id] = nil
                isThrough.remove(id)
            }
        }
    }

    func fault() -> String? {
        var requests = [0, 0, 0, 0, 0]
        var tokens = [0, 0, 0, 0, 0]
        for (id, spec) in specs {
            guard let placement = controller.placement(of: id) else { continue }
            requests[placement.decode] += 1
            tokens[placement.decode] += round(spec.promptCount + (spec.maximumTokens + 1) / 2)
            guard !placement.isColocated, !isThrough.contains(id) else { continue }
            requests[placement.prefill] += 1
            tokens[placement.prefill] += round(spec.promptCount)
        }
        let loads = controller.loads
        guard loads.map(\.requests) == requests, loads.map(\.tokens) == tokens else {
            return "ledger \(loads.map(\.requests)) \(loads.map(\.tokens)), model \(requests) \(tokens)"
        }
        guard loads.allSatisfy({ $0.requests <= 5 && $0.tokens <= 4096 }) else { return "over capacity: \(tokens)" }
        for load in loads {
            guard case .halfOpen(_, isProbing: true) = load.breaker, !isProbed(load.description.id) else { continue }
            return "rank \(load.description.id) waits for a probe that nobody sends"
        }
        return controller.waitingCount + controller.placedCount == specs.count ? nil : "requests were lost"
    }

    private func isProbed(_ rank: Int) -> Bool {
        specs.keys.contains { id in
            guard let placement = controller.placement(of: id), !isThrough.contains(id) else { return false }
            return placement.decode == rank || placement.prefill == rank
        }
    }

    private func round(_ tokens: Int) -> Int { (tokens + 63) / 64 * 64 }

    mutating func finish() {
        for id in specs.keys.sorted() { end(id) }
        obey(controller.poll(now: now))
    }
}
