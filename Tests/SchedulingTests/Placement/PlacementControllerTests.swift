import Scheduling
import Serving
import Testing

@Suite struct PlacementControllerTests {
    @Test func aRequestIsPlacedOnADecodeAndAPrefillRank() {
        var controller = makeController()
        let answer = controller.enter(1, prompt: 100, maximum: 100)
        #expect(answer == .admitted(controller.placement(of: 1) ?? nowhere))
        let placement = controller.placement(of: 1) ?? nowhere
        #expect([0, 1].contains(placement.prefill) && [2, 3].contains(placement.decode))
        #expect(controller.loads.map(\.tokens).sorted() == [0, 0, 128, 192], "prompt here, prompt and growth there")
        controller.firstToken(id: 1, attempt: 0)
        controller.firstToken(id: 1, attempt: 0)
        #expect(controller.loads.map(\.requests).sorted() == [0, 0, 0, 1], "the prefill rank is done, once")
        controller.ended(id: 1)
        #expect(controller.loads.allSatisfy { $0.requests == 0 && $0.tokens == 0 } && controller.placedCount == 0)
    }

    @Test func ranksOfBothRolesHandNothingOver() {
        var controller = PlacementController()
        controller.add(5, .both)
        _ = controller.enter(1, prompt: 100, maximum: 10)
        #expect(controller.placement(of: 1)?.isColocated == true)
        controller.firstToken(id: 1, attempt: 0)
        #expect(controller.loads.map(\.requests) == [1])
    }

    @Test func leastLoadedSpreads() {
        var controller = makeController()
        for id in 1...4 { _ = controller.enter(UInt64(id), prompt: 64, maximum: 64) }
        #expect(controller.loads.map(\.requests) == [2, 2, 2, 2])
        _ = controller.enter(5, prompt: 640, maximum: 64)
        _ = controller.enter(6, prompt: 64, maximum: 64)
        _ = controller.enter(7, prompt: 64, maximum: 64)
        #expect(controller.loads.map(\.requests).filter { $0 == 3 }.count == 2, "tokens count, not only requests")
    }

    @Test func roundRobinTakesTurns() {
        var controller = makeController(policy: .roundRobin)
        let decodes = (1...6).map { id -> Int in
            _ = controller.enter(UInt64(id), prompt: id == 1 ? 600 : 10, maximum: 10)
            return controller.placement(of: UInt64(id))?.decode ?? -1
        }
        #expect(decodes == [2, 3, 2, 3, 2, 3])
    }

    @Test func prefixAffineReturnsToTheRankThatKnowsThePrefixUnlessItIsMuchFuller() {
        var limits = PlacementLimits()
        limits.affinitySlack = 0.5
        var controller = PlacementController(limits: limits, policy: .prefixAffine)
        for rank in 0...2 { controller.add(rank, .both, requests: 8) }
        let tokens = (0..<200).map { UInt32($0) }
        let prefix = PrefixHash.blocks(of: tokens)
        let longer = PrefixHash.blocks(of: tokens + [1, 2, 3, 4] + tokens)
        #expect(prefix.count == 3 && longer.prefix(3) == prefix[...], "equal beginnings have equal hashes")
        #expect(PrefixHash.blocks(of: [7] + tokens).first != prefix.first)
        _ = controller.enter(1, prompt: 200, maximum: 8)
        _ = controller.enter(2, prompt: 200, maximum: 8, prefix: prefix)
        let home = controller.placement(of: 2)?.decode
        for id in 3...6 {
            _ = controller.enter(UInt64(id), prompt: 400, maximum: 8, prefix: longer)
            #expect(controller.placement(of: UInt64(id))?.decode == home)
        }
        _ = controller.enter(7, prompt: 400, maximum: 8, prefix: longer)
        #expect(controller.placement(of: 7)?.decode != home, "half its room more than elsewhere is taken")
    }

    /// A full rank holds nobody up whom another rank can take.
    @Test func rankLocalCapacityDoesNotStarveOtherRanks() {
        var controller = PlacementController()
        controller.add(0, .both, requests: 8, tokens: 640)
        controller.add(1, .both, requests: 8, tokens: 6400)
        #expect(controller.enter(1, prompt: 6000, maximum: 100).isAdmitted)
        #expect(controller.enter(2, prompt: 1000, maximum: 100) == .deferred(.allFull(.decode)))
        #expect(controller.enter(3, prompt: 300, maximum: 100).isAdmitted, "it goes to the small rank")
        controller.ended(id: 1)
        #expect(controller.poll(now: 0).placed == [2])
    }

    /// The one that does not fit must not wait for ever either.
    @Test func aLargeRequestIsPassedOverOnlySoOften() {
        var limits = PlacementLimits()
        limits.passesOver = 3
        var controller = PlacementController(limits: limits)
        controller.add(0, .both, requests: 8, tokens: 640)
        #expect(controller.enter(1, prompt: 64, maximum: 64).isAdmitted)
        #expect(controller.enter(2, prompt: 600, maximum: 40) == .deferred(.allFull(.decode)))
        for id in 3...5 as ClosedRange<UInt64> {
            #expect(controller.enter(id, prompt: 64, maximum: 64).isAdmitted)
            controller.ended(id: id)
        }
        #expect(controller.enter(6, prompt: 64, maximum: 64) == .deferred(.behindOthers))
        controller.ended(id: 1)
        #expect(controller.poll(now: 0).placed == [2])
    }

    @Test func deferWhenCapacityIsInsufficientDoesNotAbort() {
        var controller = PlacementController()
        controller.add(0, .prefill, requests: 1)
        controller.add(1, .decode, requests: 4)
        #expect(controller.enter(1, prompt: 64, maximum: 64).isAdmitted)
        #expect(controller.enter(2, prompt: 64, maximum: 64) == .deferred(.allFull(.prefill)))
        controller.firstToken(id: 1, attempt: 0)
        #expect(controller.poll(now: 0).placed == [2], "a prefill rank is free again with the first token")
    }

    /// No prefill rank is no reason to compute prompts on decode ranks behind the operator's back.
    @Test func noSilentFallbackToLocalPrefill() {
        var controller = PlacementController()
        controller.add(1, .decode)
        #expect(controller.enter(1, prompt: 64, maximum: 64) == .deferred(.noInstance(.prefill)))
        #expect(controller.poll(now: 2_999_999).isEmpty)
        #expect(controller.poll(now: 3_000_000) == [.expired(id: 1, .noInstance(.prefill))])
        #expect(PlacementDeferral.noInstance(.prefill).description == "no prefill instance is available")
    }

    @Test func refusesWithTheLimit() {
        var limits = PlacementLimits()
        limits.waiting = 1
        var controller = PlacementController(limits: limits)
        controller.add(0, .both, requests: 1, tokens: 640)
        #expect(controller.enter(1, prompt: 600, maximum: 50) == .rejected(.neverFits(tokens: 650, limit: 640)))
        #expect(controller.enter(1, prompt: .max, maximum: 50) == .rejected(.neverFits(tokens: .max, limit: 640)))
        #expect(controller.enter(1, prompt: .max - 50, maximum: 50) == .rejected(.neverFits(tokens: .max, limit: 640)))
        #expect(controller.enter(1, prompt: 0, maximum: 50) != .admitted(nowhere))
        #expect(controller.enter(1, prompt: 10, maximum: 50).isAdmitted)
        #expect(controller.enter(1, prompt: 10, maximum: 50) == .rejected(.duplicate(1)))
        #expect(controller.enter(2, prompt: 10, maximum: 50) == .deferred(.allFull(.decode)))
        #expect(controller.enter(3, prompt: 10, maximum: 50) == .rejected(.queueFull(limit: 1)))
        #expect(controller.waitingCount == 1 && controller.placedCount == 1)
    }

    @Test func waitingEndsAtItsTimeLimit() {
        var limits = PlacementLimits()
        limits.waitMicroseconds = 500
        var controller = PlacementController(limits: limits)
        controller.add(0, .both, requests: 1)
        _ = controller.enter(1, prompt: 10, maximum: 10)
        _ = controller.enter(2, prompt: 10, maximum: 10)
        #expect(controller.nextWake == 500)
        #expect(controller.poll(now: 499).isEmpty)
        #expect(controller.poll(now: 500) == [.expired(id: 2, .allFull(.decode))])
    }

    @Test func higherPriorityIsPlacedFirst() {
        var controller = PlacementController()
        controller.add(0, .both, requests: 1)
        _ = controller.enter(1, prompt: 10, maximum: 10)
        for (id, priority) in [(2, 0), (3, 7), (4, 7)] as [(UInt64, Int)] {
            _ = controller.submit(
                Request(id: id, promptCount: 10, maximumTokens: 10, priority: priority), now: 0)
        }
        var order: [UInt64] = []
        for _ in 0..<3 {
            controller.ended(id: order.last ?? 1)
            order += controller.poll(now: 0).placed
        }
        #expect(order == [3, 4, 2])
    }

    @Test func quarantinedMemoryCountsAsTaken() {
        var controller = PlacementController()
        controller.add(0, .both, requests: 2, tokens: 640)
        var capacity = Capacity(requests: 2, tokens: 640, quarantinedTokens: 600)
        controller.holds(instance: 0, generation: 1, capacity)
        #expect(controller.enter(1, prompt: 64, maximum: 64) == .deferred(.allFull(.decode)))
        capacity.quarantinedTokens = 0
        controller.holds(instance: 0, generation: 0, capacity)
        #expect(controller.poll(now: 0).isEmpty, "a report of an earlier generation")
        controller.holds(instance: 0, generation: 1, capacity)
        #expect(controller.poll(now: 0).placed == [1])
    }
}

let nowhere = Placement(prefill: -1, decode: -1, attempt: -1)

/// Ranks 0 and 1 prefill, 2 and 3 decode.
func makeController(policy: PlacementPolicy = .leastLoaded, limits: PlacementLimits = PlacementLimits())
    -> PlacementController
{
    var controller = PlacementController(limits: limits, policy: policy)
    for rank in 0...1 { controller.add(rank, .prefill) }
    for rank in 2...3 { controller.add(rank, .decode) }
    return controller
}

extension PlacementController {
    mutating func add(
        _ id: Int, _ role: Part, requests: Int = 16, tokens: Int = 65_536, generation: UInt64 = 1
    ) {
        let isIn = join(
            InstanceDescription(
                id: id, name: "rank-\(id)", part: role, capacity: Capacity(requests: requests, tokens: tokens),
                generation: generation),
            now: 0)
        precondition(isIn)
    }

    mutating func enter(_ id: UInt64, prompt: Int, maximum: Int, prefix: [UInt64] = []) -> PlacementAnswer {
        submit(Request(id: id, promptCount: prompt, maximumTokens: maximum), prefix: prefix, now: 0)
    }
}

extension PlacementAnswer {
    var isAdmitted: Bool { if case .admitted = self { true } else { false } }
}

extension [PlacementAction] {
    var placed: [UInt64] { compactMap { if case .place(let id, _) = $0 { id } else { nil } } }
    var restarted: [UInt64] { compactMap { if case .restart(let id, _) = $0 { id } else { nil } } }
}
