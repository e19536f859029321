import Foundation
import Glibc
import RPC
import Testing
import WireProtocol

/// An instance that is stopped rather than dead: its sockets stay open and it says nothing.
@Suite(.serialized) struct FrozenPeerTests {
    @Test func aFrozenPrefillInstanceCostsOneLeaseAndNoToken() async throws {
        let set = try await RunningSet(
            "base", ["--prefill", "2", "--decode", "1", "--threads", "1", "--slots", "8", "--lease", "1"])
        let victim = try #require(set.children(holding: "--role prefill").first)
        let storm = Storm(seed: 3, count: 60)
        let outcome = try await set.withClient { client in
            #expect(Glibc.kill(victim, SIGSTOP) == 0)
            defer { Glibc.kill(victim, SIGCONT) }
            let outcome = try await storm.run(client)
            let ends = try await counters(client)
            #expect((ends["attention2.transfers_in_ended_lease_expired"] ?? 0) > 0, "\(ends)")
            return outcome
        }
        try storm.expectReferenceTokens(outcome)
        let left = try await set.whatIsInUse(ranks: 3)
        #expect(left.isEmpty, "\(left)")
        #expect(set.stop() == 0)
    }

    @Test func aFrozenDecodeInstanceLosesNoRequest() async throws {
        let set = try await RunningSet(
            "base", ["--prefill", "1", "--decode", "2", "--threads", "1", "--slots", "8", "--lease", "1"])
        let victim = try #require(set.children(holding: "--role decode").first)
        let storm = Storm(seed: 4, count: 60)
        let outcome = try await set.withClient { client in
            let freezer = Task(executorPreference: set.loop) {
                await set.loop.pause(microseconds: 200_000)
                return Glibc.kill(victim, SIGSTOP)
            }
            defer { Glibc.kill(victim, SIGCONT) }
            let outcome = try await storm.run(client)
            #expect(await freezer.value == 0)
            return outcome
        }
        try storm.expectReferenceTokens(outcome)
        let left = try await set.whatIsInUse(ranks: 3)
        #expect(left.isEmpty, "\(left)")
        #expect(set.stop() == 0)
    }
}
