import Scheduling
import Serving
import Testing

/// What is needed is gone: who waits for it, how long, and what they are told.
@Suite struct PlacementOutageTests {
    private static let reason = "no sampler can be called by attention 0: connection refused"

    private func submit(_ id: UInt64, to controller: inout PlacementController, now: UInt64) -> PlacementAnswer {
        controller.submit(Request(id: id, promptCount: 64, maximumTokens: 64), now: now)
    }

    @Test func anInstanceWithABrokenChainGetsNothingWhileAnotherHasAWholeOne() {
        var controller = PlacementController()
        controller.add(0, .both)
        controller.add(1, .both)
        controller.chain(instance: 0, generation: 1, fault: Self.reason)
        for id in 1...4 as ClosedRange<UInt64> {
            _ = submit(id, to: &controller, now: 0)
            #expect(controller.placement(of: id)?.decode == 1)
        }
        #expect(controller.outage == nil)
        controller.chain(instance: 0, generation: 1, fault: nil)
        _ = submit(5, to: &controller, now: 0)
        #expect(controller.placement(of: 5)?.decode == 0)
    }

    @Test func whenNoChainIsWholeRequestsEndWithTheReason() {
        var controller = PlacementController()
        controller.add(0, .both)
        controller.chain(instance: 0, generation: 1, fault: Self.reason)
        let outage = PlacementDeferral.brokenChain(.decode, Self.reason)
        #expect(controller.outage == outage && outage.description == Self.reason)
        #expect(outage.isOutage && !outage.isShortage)
        #expect(submit(1, to: &controller, now: 1_000_000) == .deferred(outage))
        #expect(controller.nextWake == 4_000_000)
        #expect(controller.poll(now: 3_999_999).isEmpty)
        #expect(controller.poll(now: 4_000_000) == [.expired(id: 1, outage)])
    }

    /// Who comes when all have waited long enough need not wait as long again.
    @Test func anOutageIsWaitedForOnceAndNotByEveryRequestAnew() {
        var controller = PlacementController()
        controller.add(0, .both)
        controller.chain(instance: 0, generation: 1, fault: Self.reason)
        _ = submit(1, to: &controller, now: 0)
        _ = controller.poll(now: 3_000_000)
        _ = submit(2, to: &controller, now: 60_000_000)
        #expect(controller.poll(now: 60_000_000) == [.expired(id: 2, .brokenChain(.decode, Self.reason))])
        controller.chain(instance: 0, generation: 1, fault: nil)
        controller.chain(instance: 0, generation: 1, fault: Self.reason)
        _ = submit(3, to: &controller, now: 70_000_000)
        #expect(controller.poll(now: 72_999_999).isEmpty, "that is another outage")
        controller.chain(instance: 0, generation: 1, fault: nil)
        #expect(controller.poll(now: 72_999_999).placed == [3])
    }

    @Test func aStreamThatHasBegunWaitsLongerThanARequestThatHasNot() {
        var controller = PlacementController()
        controller.add(0, .both)
        for id in 1...2 as ClosedRange<UInt64> { _ = submit(id, to: &controller, now: 0) }
        controller.firstToken(id: 1, attempt: 0)
        controller.lost(instance: 0, generation: 1, because: "killed", now: 10_000_000)
        #expect(controller.poll(now: 10_000_000).restarted == [1, 2])
        #expect(controller.poll(now: 13_000_000) == [.expired(id: 2, .noInstance(.decode))])
        #expect(controller.poll(now: 24_999_999).isEmpty)
        #expect(controller.poll(now: 25_000_000) == [.expired(id: 1, .noInstance(.decode))])
    }

    @Test func aQueueThatIsFullForAnOutageIsNoLimitOfRate() {
        var limits = PlacementLimits()
        limits.waiting = 1
        var controller = PlacementController(limits: limits)
        controller.add(0, .both, requests: 1)
        controller.chain(instance: 0, generation: 1, fault: Self.reason)
        _ = submit(1, to: &controller, now: 0)
        let outage = PlacementDeferral.brokenChain(.decode, Self.reason)
        #expect(submit(2, to: &controller, now: 0) == .rejected(.outage(outage)))
        controller.chain(instance: 0, generation: 1, fault: nil)
        #expect(controller.poll(now: 1).placed == [1])
        _ = submit(3, to: &controller, now: 1)
        #expect(submit(4, to: &controller, now: 1) == .rejected(.queueFull(limit: 1)))
    }

    /// A circuit breaker opens for five seconds; whoever waits for it is not told that something is gone.
    @Test func aBreakerThatIsOpenIsNoOutage() {
        var controller = PlacementController()
        controller.add(0, .both)
        for id in 1...3 as ClosedRange<UInt64> {
            _ = submit(id, to: &controller, now: 0)
            controller.broke(id: id, attempt: 0, instance: 0, because: "torn", now: 0)
            controller.ended(id: id)
        }
        _ = controller.poll(now: 0)
        #expect(submit(4, to: &controller, now: 0) == .deferred(.resting(.decode)))
        #expect(controller.outage == nil)
        #expect(controller.poll(now: 4_000_000).isEmpty)
        #expect(controller.poll(now: 5_000_000).placed == [4])
    }

    /// An instance that could not hold all a request may come to take would refuse it.
    @Test func aRequestIsPlacedOnlyWhereAllOfItFits() {
        var controller = PlacementController()
        controller.add(0, .both, tokens: 256)
        controller.add(1, .both, tokens: 1024)
        #expect(controller.enter(1, prompt: 64, maximum: 300).isAdmitted)
        #expect(controller.placement(of: 1)?.decode == 1, "though half of the growth fits either")
        let slice = InstanceDescription(
            id: 2, name: "slice", part: .both, capacity: Capacity(requests: 64, tokens: 8192, requestTokens: 512),
            generation: 1)
        let isIn = controller.join(slice, now: 0)
        #expect(isIn)
        #expect(
            controller.enter(2, prompt: 1000, maximum: 100)
                == .rejected(.neverFits(tokens: 1100, limit: 1024)), "sixteen ranks of 512 tokens are no rank of 8192")
    }

    /// A late note about a process that is gone must not close its successor.
    @Test func aFaultOfAnEarlierGenerationIsIgnored() {
        var controller = PlacementController()
        controller.add(0, .both)
        controller.chain(instance: 0, generation: 1, fault: Self.reason)
        controller.add(0, .both, generation: 2)
        #expect(controller.outage == nil, "who restarted has not said anything of the kind")
        controller.chain(instance: 0, generation: 1, fault: Self.reason)
        #expect(controller.outage == nil)
    }

    @Test func aDecodeInstanceIsNoUseWithoutAPrefillInstanceThatCanWork() {
        var controller = PlacementController()
        controller.add(0, .prefill)
        controller.add(1, .decode)
        controller.chain(instance: 0, generation: 1, fault: Self.reason)
        #expect(controller.outage == .brokenChain(.prefill, Self.reason))
        #expect(submit(1, to: &controller, now: 0) == .deferred(.brokenChain(.prefill, Self.reason)))
        controller.add(2, .both)
        #expect(controller.outage == nil && controller.poll(now: 0).placed == [1])
    }
}
