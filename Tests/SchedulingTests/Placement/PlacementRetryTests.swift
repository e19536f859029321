import Scheduling
import Serving
import Testing

@Suite struct PlacementRetryTests {
    private func limits(floor: Int, share: Int = 0) -> PlacementLimits {
        var limits = PlacementLimits()
        (limits.retries.floor, limits.retries.sharePercent) = (floor, share)
        return limits
    }

    @Test func whatTheBudgetDoesNotAllowIsGivenUpAndHoldsNothing() {
        var controller = PlacementController(limits: limits(floor: 1))
        controller.add(0, .both, requests: 1)
        controller.add(1, .both, requests: 1)
        for id in 1...2 as ClosedRange<UInt64> { #expect(controller.enter(id, prompt: 64, maximum: 64).isAdmitted) }
        for id in 1...2 as ClosedRange<UInt64> {
            controller.broke(id: id, attempt: 0, instance: nil, because: "torn", now: 0)
        }
        let actions = controller.poll(now: 0)
        #expect(actions.restarted == [1] && actions.placed == [1])
        #expect(actions.contains(.overBudget(id: 2, because: "torn")))
        #expect(controller.placedCount == 1 && controller.waitingCount == 0)
        #expect(controller.retriesRefused == 1 && controller.retriesLeft(now: 0) == 0)
        #expect(controller.retriesLeft(now: 20_000_000) == 1)
    }

    /// The largest instance may die without a request being given up, also when it holds more than the floor.
    @Test func theDeathOfOneInstanceIsAlwaysWithinTheBudget() {
        var controller = PlacementController(limits: limits(floor: 1), policy: .roundRobin)
        controller.add(0, .both, requests: 600)
        controller.add(1, .both, requests: 600)
        for id in 1...1000 as ClosedRange<UInt64> {
            #expect(controller.enter(id, prompt: 1, maximum: 1).isAdmitted)
            if let placement = controller.placement(of: id) {
                controller.firstToken(id: id, attempt: placement.attempt)
            }
        }
        controller.lost(instance: 0, generation: 1, because: "killed", now: 60_000_000)
        let actions = controller.poll(now: 60_000_000)
        #expect(actions.restarted.count == 500 && controller.retriesRefused == 0)
    }

    /// A request that broke as often as it may is given up for that, and takes nothing from the others.
    @Test func aRequestsOwnLimitComesFirst() {
        var limits = limits(floor: 16)
        limits.restarts = 0
        var controller = PlacementController(limits: limits)
        controller.add(0, .both)
        _ = controller.enter(1, prompt: 64, maximum: 64)
        controller.broke(id: 1, attempt: 0, instance: nil, because: "poison", now: 0)
        #expect(controller.poll(now: 0) == [.failed(id: 1, because: "poison")])
        #expect(controller.retriesLeft(now: 0) == 16 && controller.retriesRefused == 0)
    }

    @Test func requestsAreCountedOnceHoweverOftenTheyAreStarted() {
        var controller = PlacementController(limits: limits(floor: 0, share: 100))
        controller.add(0, .both, requests: 1)
        _ = controller.enter(1, prompt: 64, maximum: 64)
        #expect(controller.retriesLeft(now: 0) == 1 + 1, "one request, and the one the instance holds")
        controller.broke(id: 1, attempt: 0, instance: nil, because: "torn", now: 0)
        #expect(controller.poll(now: 0).placed == [1])
        #expect(controller.retriesLeft(now: 0) == 1)
    }
}
