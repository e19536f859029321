import AttentionService
import Checkpoint
import EventLoop
import Foundation
import RPC
import Serving
import Testing
import WireProtocol

/// State that moves from a prefill to a decode instance on the in-memory network.
@Suite(.serialized) struct HandOffTests {
    private let checkpoint: Checkpoint
    private let reference: GreedyReference

    init() throws {
        checkpoint = try Checkpoint(directory: Executables.goldens.appendingPathComponent("base"))
        reference = try GreedyReference(checkpoint)
    }

    /// One prefill instance (0) and one decode instance (1).
    private func pair(_ change: (inout MemoryCluster.Plan) -> Void = { _ in }) -> MemoryCluster.Plan {
        var plan = MemoryCluster.Plan()
        (plan.both, plan.prefill, plan.decode) = (0, 1, 1)
        plan.prefillChunk = 64
        change(&plan)
        return plan
    }

    private static let prefill = "memory:\(MemoryCluster.Port.attention)"

    private func message(_ prompt: [UInt32], _ count: Int, generated: [UInt32] = []) -> TokensRequest {
        TokensRequest(Request(prompt: prompt, generated: generated, maximumTokens: count), prefill: Self.prefill)
    }

    private func generate(_ client: RPCClient, _ message: TokensRequest) async throws -> [Token] {
        let stream = try await client.stream(
            .generateTokens, RPCPayload(metadata: message.encoded()), timeoutMicroseconds: 60_000_000)
        var result: [Token] = []
        while let item = try await stream.next() { result.append(try Token(decoding: item.metadata)) }
        return result
    }

    private func status(_ client: RPCClient) async throws -> [String: Int64] {
        let reply = try await client.call(.status, RPCPayload(), timeoutMicroseconds: 5_000_000)
        return try StatusReply(decoding: reply.metadata).counters
    }

    /// Nothing is held on an instance, whatever happened there.
    private func expectIdle(_ cluster: MemoryCluster, _ index: Int, seed: UInt64) throws {
        let counters = try cluster.with(cluster.makeAttentionClient(index)) { client in
            await cluster.clientLoop.pause(microseconds: 2_000_000)
            return try await status(client)
        }
        for name in ["slots_in_use", "pages_in_use", "slots_quarantined", "pages_leased", "requests_running"] {
            #expect(counters[name] == 0, "seed \(seed): instance \(index) has \(name) \(counters[name] ?? -1)")
        }
    }

    @Test(arguments: [1, 63, 64, 65, 150, 200]) func aPromptComputedElsewhereGivesTheSameBits(length: Int) throws {
        let cluster = try MemoryCluster(checkpoint, seed: UInt64(length), pair())
        let prompt = (0..<length).map { UInt32($0 * 31 % 256) }
        let result = try cluster.with(cluster.makeAttentionClient(1)) { try await generate($0, message(prompt, 12)) }
        #expect(result == (try reference.tokens(prompt, count: 12)))
        for index in 0...1 { try expectIdle(cluster, index, seed: UInt64(length)) }
        try cluster.close()
    }

    @Test(arguments: 1...5) func tokensThatWereSentAreNotSentAgainAndTheRestKeepsItsBits(done: Int) throws {
        let cluster = try MemoryCluster(checkpoint, seed: UInt64(done), pair())
        let prompt = (0..<90).map { UInt32($0 * 7 % 256) }
        let expected = try reference.tokens(prompt, count: 12)
        let result = try cluster.with(cluster.makeAttentionClient(1)) { client in
            try await generate(client, message(prompt, 12, generated: expected.prefix(done).map(\.id)))
        }
        #expect(result == Array(expected.dropFirst(done)))
        try cluster.close()
    }

    @Test func theStateOfALongPromptStartsToArriveBeforeItIsComputed() throws {
        let cluster = try MemoryCluster(checkpoint, seed: 3, pair { $0.slots = 2 })
        let prompt = (0..<500).map { UInt32($0 * 3 % 256) }
        let (early, counters) = try cluster.with(cluster.makeAttentionClient(1)) { client in
            let watcher = cluster.makeAttentionClient(0)
            watcher.start()
            defer { watcher.close() }
            let whole = Task(executorPreference: cluster.clientLoop) { try await generate(client, message(prompt, 2)) }
            var early: Int64 = 0
            while early == 0 {
                await cluster.clientLoop.pause(microseconds: 200)
                early = try await status(watcher)["transfers_out_bytes"] ?? 0
            }
            let before = early
            _ = try await whole.value
            return (before, try await status(watcher))
        }
        let total = try #require(counters["transfers_out_bytes"])
        #expect(early > 0 && early < total / 2, "\(early) of \(total) bytes")
        #expect(counters["transfers_out_ended_complete"] == 1)
        try cluster.close()
    }

    @Test(arguments: 1...8) func aPrefillInstanceThatDiesFailsOnlyItsRequestsAndLeavesNothing(seed: UInt64) throws {
        let cluster = try MemoryCluster(checkpoint, seed: seed, pair())
        let prompt = (0..<400).map { UInt32($0 * 5 % 256) }
        try cluster.with(cluster.makeAttentionClient(1)) { client in
            let victim = Task(executorPreference: cluster.clientLoop) { try await generate(client, message(prompt, 4)) }
            await cluster.clientLoop.pause(microseconds: 1_000 * seed)
            let died = cluster.clientLoop.now
            cluster.kill(0)
            await #expect { _ = try await victim.value } throws: { ($0 as? RPCError)?.isRetryable == true }
            #expect(cluster.clientLoop.now - died < 1_000_000, "seed \(seed)")
        }
        try expectIdle(cluster, 1, seed: seed)
        try cluster.close()
    }

    @Test(arguments: 1...8) func aDecodeInstanceThatDiesFreesThePrefillInstanceWithinASecond(seed: UInt64) throws {
        let cluster = try MemoryCluster(checkpoint, seed: seed, pair())
        let prompt = (0..<400).map { UInt32($0 * 5 % 256) }
        try cluster.with(cluster.makeAttentionClient(1)) { client in
            let victim = Task(executorPreference: cluster.clientLoop) { try await generate(client, message(prompt, 4)) }
            await cluster.clientLoop.pause(microseconds: 1_000 * seed)
            cluster.kill(1)
            await #expect { _ = try await victim.value } throws: { ($0 as? RPCError)?.isRetryable == true }
        }
        try expectIdle(cluster, 0, seed: seed)
        try cluster.close()
    }

    @Test(arguments: 1...8) func aCallerThatCancelsFreesBothSides(seed: UInt64) throws {
        let cluster = try MemoryCluster(checkpoint, seed: seed, pair())
        let prompt = (0..<400).map { UInt32($0 * 5 % 256) }
        try cluster.with(cluster.makeAttentionClient(1)) { client in
            let victim = Task(executorPreference: cluster.clientLoop) {
                try await generate(client, message(prompt, 40))
            }
            await cluster.clientLoop.pause(microseconds: 1_500 * seed)
            victim.cancel()
            await #expect(throws: RPCError.self) { _ = try await victim.value }
        }
        for index in 0...1 { try expectIdle(cluster, index, seed: seed) }
        try cluster.close()
    }
}
