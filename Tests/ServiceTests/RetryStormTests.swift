import Checkpoint
import Foundation
import RPC
import Scheduling
import Testing
import WireProtocol

/// Fleets that fail altogether, behind the gateway: what is placed again is bounded over all requests, and who is given
/// up for that is told so.
@Suite struct RetryStormTests {
    private func limits(floor: Int, share: Int) -> RetryBudget.Limits {
        var limits = RetryBudget.Limits()
        (limits.floor, limits.sharePercent) = (floor, share)
        return limits
    }

    @Test(arguments: [FailingFleet.Fault.refused, .brokenAfterAToken], 1...4 as ClosedRange<UInt64>)
    func aFleetThatFailsIsAskedForLittleMoreThanItsRequests(fault: FailingFleet.Fault, seed: UInt64) throws {
        let fleet = try FailingFleet(
            fault, instances: 3, slots: 8, retries: limits(floor: 20, share: 20), seed: seed)
        // One at a time, a first token always comes before the next failure, so that no breaker opens.
        let failures = try fleet.failures(count: 300, atOnce: fault == .refused ? 12 : 1)
        let windows = Int(fleet.network.now / RetryBudget.windowMicroseconds) + 1
        let most = 300 + 300 / 5 + 20 * windows
        #expect(fleet.placements <= most, "seed \(seed): \(fleet.placements) placements, not \(most)")
        #expect(windows < 4, "seed \(seed): the bound says little over \(windows) windows")
        let refused = failures.count { $0?.code == .retryBudgetSpent }
        #expect(refused > 150 && failures.allSatisfy { $0 != nil }, "seed \(seed): \(refused) refused")
        let counters = try fleet.counters()
        #expect(counters["retries_refused"] == Int64(refused) && counters["requests"] == 0, "seed \(seed)")
        #expect((counters["retries_left"] ?? -1) < 20 && counters["requests_placed"] == 0, "seed \(seed)")
    }

    /// What the budget is against, and the proof that the test above can fail.
    @Test func withoutABudgetAFleetThatFailsIsAskedFourTimesForEverything() throws {
        let fleet = try FailingFleet(
            .refused, instances: 3, slots: 8, retries: limits(floor: 1_000_000, share: 0), seed: 1)
        let failures = try fleet.failures(count: 300, atOnce: 12)
        #expect(fleet.placements == 4 * 300)
        #expect(failures.allSatisfy { $0?.code == .unavailable })
    }

    @Test func theClientIsToldOverHTTPWhenToComeBack() throws {
        let fleet = try FailingFleet(
            .refused, instances: 2, slots: 1, retries: limits(floor: 0, share: 0), seed: 1)
        let answer = try fleet.complete()
        #expect(answer.status == 503)
        #expect(answer.headers.first { $0.name.lowercased() == "retry-after" }?.value == "10")
        let json = try #require(JSONSerialization.jsonObject(with: answer.body) as? [String: [String: Any]])
        #expect(json["error"]?["code"] as? String == "retry_budget_spent")
        #expect(json["error"]?["type"] as? String == "server_error")
        let message = try #require(json["error"]?["message"] as? String)
        #expect(message.contains("it is about to stop") && message.contains("10 seconds"), "\(message)")
        #expect(fleet.placements == 2, "as many retries as an instance holds requests are always there")
    }

    /// A request that was given up while its instance said nothing waited for that instance until its time was over.
    @Test func aRequestThatIsGivenUpDoesNotWaitForAFrozenInstance() throws {
        let fleet = try FailingFleet(
            .silence, instances: 2, slots: 1, retries: limits(floor: 0, share: 0), seed: 1)
        let begun = fleet.network.now
        fleet.freezeSoon(microseconds: 300_000)
        let failures = try fleet.failures(count: 2, atOnce: 2)
        #expect(Set(failures.map { $0?.code }) == [.retryBudgetSpent, .unavailable], "\(failures)")
        #expect(fleet.network.now - begun < 60_000_000, "the limit of a request is ten minutes")
    }

    /// The first token of a request that was placed again counted for nothing: its instance was taken to be still at the
    /// prompt, and its circuit breaker opened although a token had come between any two failures.
    @Test func anInstanceThatSendsTokensOfARequestPlacedAgainIsWell() throws {
        let fleet = try FailingFleet(
            .brokenAfterAToken, instances: 1, slots: 8, retries: limits(floor: 1000, share: 0), seed: 1)
        let failures = try fleet.failures(count: 10, atOnce: 1)
        #expect(fleet.placements == 4 * 10 && failures.allSatisfy { $0?.code == .unavailable })
        #expect(try fleet.counters()["instance0.breaker_state"] == 0)
        #expect(fleet.network.now < RetryBudget.windowMicroseconds, "nobody waited for a breaker")
    }

    /// What a small fleet needs while one of its instances after the other is killed, seven times a second, is there
    /// without being asked for.
    @Test func killsOfASmallFleetLeaveHalfOfTheFloor() throws {
        let seed: UInt64 = 5
        let checkpoint = try Checkpoint(directory: Executables.goldens.appendingPathComponent("base"))
        let cluster = try MemoryCluster(checkpoint, seed: seed, .storm)
        let storm = Storm(seed: seed, count: 1200)
        let (kills, counters) = try cluster.withClient { client in
            let outcome = try await storm.run(client, killingIn: cluster)
            return (outcome.kills, try await ServiceTests.counters(client))
        }
        #expect(kills > 5 && counters["retries_refused"] == 0, "\(kills) kills, seed \(seed)")
        let left = try #require(counters["retries_left"])
        #expect(left > RetryBudget.Limits().floor / 2, "\(left) left after \(kills) kills, seed \(seed)")
        try cluster.close()
    }

    @Test(arguments: [(FailingFleet.Fault.namesNoCapacity, 4), (.refused, 0)])
    func anInstanceThatNamesNoCapacityIsRefusedByName(fault: FailingFleet.Fault, slots: Int) {
        let error = #expect(throws: RPCError.self) {
            _ = try FailingFleet(fault, instances: 1, slots: slots, retries: RetryBudget.Limits(), seed: 5)
        }
        #expect(error?.code == .unavailable)
        #expect(error?.message.contains("memory:7100: its status names no capacity") == true, "\(error?.message ?? "")")
    }
}
