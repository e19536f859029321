import Checkpoint
import EventLoop
import RPC
import Serving
import TestSupport
import Testing
import WireProtocol

/// Conversations over the in-memory network: whatever of them is kept, handed over, evicted or computed again, an answer
/// has the bits of one process that computes it from its first token.
@Suite(.serialized) struct PrefixCacheClusterTests {
    private static let checkpoints = ["base", "noqlora6h", "tail", "fp8", "yarn"]

    /// A hundred workloads for each checkpoint. Every answer is also forced: what was generated comes back as a prompt,
    /// and the rest must follow with the logprobs that it had.
    @Test(arguments: checkpoints) func forcedForkedAndContinuedAnswersKeepTheirBits(name: String) throws {
        let checkpoint = try Checkpoint(directory: Executables.goldens.appendingPathComponent(name))
        let reference = try GreedyReference(checkpoint)
        var hits: Int64 = 0
        for seed in 1...100 as ClosedRange<UInt64> {
            var random = SeededRandom(seed: seed)
            let cluster = try MemoryCluster(checkpoint, seed: seed, Self.plan(&random))
            let talk = Conversations(
                seed: seed, vocabulary: UInt32(checkpoint.configuration.vocabularySize),
                context: min(256, checkpoint.configuration.maximumPositions))
            let answers = try cluster.withClient { try await talk.run($0) }
            for answer in answers {
                let expected = try reference.tokens(answer.prompt, count: answer.tokens.count)
                #expect(answer.tokens == expected, "\(name), seed \(seed): \(answer.prompt.count) prompt tokens")
            }
            hits += answers.reduce(0) { $0 + Int64($1.cached) }
            try cluster.close()
        }
        #expect(hits > 5000, "\(name): \(hits) tokens of prompts were kept")
    }

    @Test func aHandOffCarriesOnlyWhatTheDecodeInstanceLacks() throws {
        let checkpoint = try Checkpoint(directory: Executables.goldens.appendingPathComponent("base"))
        var plan = MemoryCluster.Plan()
        (plan.both, plan.prefill, plan.decode) = (0, 1, 1)
        let cluster = try MemoryCluster(checkpoint, seed: 1, plan)
        let prompt = (0..<300).map { UInt32($0 * 31 % 256) }
        let (first, second, cached) = try cluster.withClient { client in
            let answer = try await Conversations.ask(client, prompt, 40)
            let first = try await Self.received(cluster)
            let next = prompt + answer.tokens.map(\.id) + [1, 2, 3]
            let cached = try await Conversations.ask(client, next, 4).cached
            return (first, try await Self.received(cluster) - first, cached)
        }
        #expect(cached == 300, "the prefill instance goes on from the prompt that it computed")
        #expect(second < first / 2, "\(first) bytes came for 300 tokens, and \(second) for 343 of which 320 were there")
        try cluster.close()
    }

    private static func received(_ cluster: MemoryCluster) async throws -> Int64 {
        let client = cluster.makeAttentionClient(1)
        client.start()
        defer { client.close() }
        try await client.waitReady(timeoutMicroseconds: 5_000_000)
        let reply = try await client.call(.status, RPCPayload(), timeoutMicroseconds: 5_000_000)
        return try StatusReply(decoding: reply.metadata).counters["transfers_in_bytes"] ?? 0
    }

    /// Any layout, with memory from barely enough to plenty.
    private static func plan(_ random: inout SeededRandom) -> MemoryCluster.Plan {
        var plan = MemoryCluster.Plan()
        if Bool.random(using: &random) { (plan.both, plan.prefill, plan.decode) = (0, 1, 1) }
        plan.prefillChunk = 64 * Int.random(in: 1...3, using: &random)
        plan.slots = Int.random(in: 1...3, using: &random)
        plan.pages = Int.random(in: 9...30, using: &random)
        let snapshots = Int.random(in: 0...6, using: &random)
        plan.limits = {
            $0.snapshots = snapshots
            $0.snapshotTokens = 128
        }
        return plan
    }
}

/// A few conversations at once that begin alike, of a few turns each.
private struct Conversations: Sendable {
    struct Answer: Sendable {
        let prompt: [UInt32]
        let tokens: [Token]
        let cached: Int
    }

    let seed: UInt64
    let vocabulary: UInt32
    /// Tokens that the model takes.
    let context: Int

    func run(_ client: RPCClient) async throws -> [Answer] {
        var random = SeededRandom(seed: seed)
        let shared = text(Int.random(in: 1...context / 4, using: &random), &random)
        let seeds = (0..<Int.random(in: 1...3, using: &random)).map { _ in random.next() }
        return try await withThrowingTaskGroup(of: [Answer].self) { group in
            for seed in seeds {
                group.addTask(executorPreference: client.loop) { try await one(seed, shared, client) }
            }
            return try await group.reduce(into: []) { $0 += $1 }
        }
    }

    private func one(_ seed: UInt64, _ shared: [UInt32], _ client: RPCClient) async throws -> [Answer] {
        var random = SeededRandom(seed: seed)
        var (history, answers) = (shared, [Answer]())
        for _ in 0..<Int.random(in: 2...3, using: &random) {
            history += text(Int.random(in: 1...context / 8, using: &random), &random)
            await client.loop.pause(microseconds: UInt64.random(in: 0...20_000, using: &random))
            let answer = try await Self.ask(client, history, Int.random(in: 2...context / 10, using: &random))
            let ids = answer.tokens.map(\.id)
            let cut = Int.random(in: 1..<ids.count, using: &random)
            let forced = try await Self.ask(client, history + ids[..<cut], ids.count - cut)
            guard forced.tokens == Array(answer.tokens[cut...]) else { return [forced, answer] }
            answers += [answer, forced]
            history += ids
        }
        return answers
    }

    private func text(_ count: Int, _ random: inout SeededRandom) -> [UInt32] {
        (0..<count).map { _ in UInt32.random(in: 0..<vocabulary, using: &random) }
    }

    static func ask(_ client: RPCClient, _ prompt: [UInt32], _ count: Int) async throws -> Answer {
        let stream = try await client.stream(
            .generate, RPCPayload(metadata: request(prompt, count).encoded()), timeoutMicroseconds: 600_000_000)
        var tokens: [Token] = []
        while let item = try await stream.next() { tokens += try GenerateItem(decoding: item.metadata).tokens }
        let end = try End(decoding: stream.final?.metadata ?? [])
        return Answer(prompt: prompt, tokens: tokens, cached: end.cachedTokens)
    }
}
