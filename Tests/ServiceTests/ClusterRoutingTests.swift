import Checkpoint
import EventLoop
import Foundation
import RPC
import Serving
import TestSupport
import Testing
import WireProtocol

/// Requests over several prefill and decode instances on the in-memory network, placed by the gateway.
@Suite(.serialized) struct ClusterRoutingTests {
    private let checkpoint: Checkpoint
    private let reference: GreedyReference

    init() throws {
        checkpoint = try Checkpoint(directory: Executables.goldens.appendingPathComponent("base"))
        reference = try GreedyReference(checkpoint)
    }

    /// A random layout: colocated, disaggregated or mixed, with any chunk, and now and then so little KV memory that
    /// running requests are preempted and computed again.
    private func layout(_ random: inout SeededRandom) -> MemoryCluster.Plan {
        var plan = MemoryCluster.Plan()
        plan.both = Int.random(in: 0...1, using: &random)
        plan.prefill = Int.random(in: (1 - plan.both)...2, using: &random)
        plan.decode = Int.random(in: (1 - plan.both)...2, using: &random)
        plan.experts = Int.random(in: 1...2, using: &random)
        plan.prefillChunk = 64 * Int.random(in: 1...3, using: &random)
        plan.slots = Int.random(in: 2...4, using: &random)
        return plan
    }

    @Test func twoHundredWorkloadsKeepTheirBitsInAnyLayout() throws {
        var preemptions: Int64 = 0
        var transfers: Int64 = 0
        for seed in UInt64(1)...200 {
            var random = SeededRandom(seed: seed)
            var plan = layout(&random)
            let isTight = seed % 2 == 0
            if isTight {
                (plan.slots, plan.pages) = (4, 5)
                plan.limits = { $0.expectedGrowth = 0 }
            }
            let cluster = try MemoryCluster(checkpoint, seed: seed, plan)
            let workload = Workload(
                seed: seed, vocabulary: 256, requests: isTight ? 5...7 : 2...4, prompt: isTight ? 50...64 : 1...150,
                tokens: isTight ? 12...20 : 1...12)
            let results = try cluster.withClient { try await workload.run($0) }
            for (index, request) in workload.requests.enumerated() {
                let expected = try reference.tokens(request.prompt, count: request.count)
                #expect(results[index] == expected, "seed \(seed), request \(index)")
            }
            let counters = try cluster.withClient { try await ServiceTests.counters($0) }
            preemptions += counters.filter { $0.key.hasSuffix(".preemptions") }.values.reduce(0, +)
            transfers += counters.filter { $0.key.hasSuffix("in_ended_complete") }.values.reduce(0, +)
            try cluster.close()
        }
        #expect(preemptions > 20 && transfers > 200, "\(preemptions) preemptions, \(transfers) transfers")
    }

    /// Two thousand requests, a third of them cancelled in mid-stream, while instances are killed and started again.
    @Test func aCancelStormWithKillsLeavesNothingAndChangesNoSurvivor() throws {
        let seed: UInt64 = 20_261_124
        let cluster = try MemoryCluster(checkpoint, seed: seed, .storm)
        let storm = Storm(seed: seed, count: 2000)
        let outcome = try cluster.withClient { try await storm.run($0, killingIn: cluster) }
        var expected: [Int: [Token]] = [:]
        for (index, result) in outcome.results.enumerated() {
            let prompt = index % Storm.prompts
            let wanted = try expected[prompt] ?? reference.tokens(storm.prompt(prompt), count: Storm.tokens)
            expected[prompt] = wanted
            switch result {
            case .finished(let tokens): #expect(tokens == wanted, "seed \(seed), request \(index)")
            case .cancelled(let tokens):
                #expect(tokens.elementsEqual(wanted.prefix(tokens.count)), "seed \(seed), request \(index)")
            case .failed(let error): Issue.record("seed \(seed), request \(index): \(error)")
            }
        }
        #expect(outcome.kills > 10, "seed \(seed): \(outcome.kills) kills")
        let counters = try cluster.withClient { client in
            await cluster.clientLoop.pause(microseconds: 6_000_000)
            return try await ServiceTests.counters(client)
        }
        for name in ["slots_in_use", "pages_in_use", "slots_quarantined", "transfers_in_open", "transfers_out_open"] {
            for rank in 0..<4 {
                #expect(counters["attention\(rank).\(name)"] == 0, "seed \(seed), rank \(rank) \(name)")
            }
        }
        #expect(counters["requests"] == 0, "seed \(seed)")
        try cluster.close()
    }
}

/// Many requests of a few prompts, some of which are given up in mid-stream, and instances that die meanwhile.
final class Storm: @unchecked Sendable {
    static let prompts = 16
    static let tokens = 10

    enum Result: Sendable, CustomStringConvertible {
        case finished([Token])
        case cancelled([Token])
        case failed(String)

        var description: String {
            switch self {
            case .finished(let tokens): "finished with \(RunTrace.text(tokens))"
            case .cancelled(let tokens): "was given up after \(RunTrace.text(tokens))"
            case .failed(let error): "failed: \(error)"
            }
        }
    }

    struct Outcome: Sendable {
        let results: [Result]
        let kills: Int
    }

    private let seed: UInt64
    private let count: Int
    private let trace: RunTrace?
    private var kills = 0

    init(seed: UInt64, count: Int, trace: RunTrace? = nil) {
        self.seed = seed
        self.count = count
        self.trace = trace
    }

    func prompt(_ index: Int) -> [UInt32] { (0..<(5 + 9 * index)).map { UInt32(($0 * 17 + index * 41) % 256) } }

    /// All requests, at most forty at a time.
    func run(_ client: RPCClient) async throws -> Outcome {
        let results = await withTaskGroup(of: (Int, Result).self) { group in
            var results = [Result](repeating: .failed("never ran"), count: count)
            for index in 0..<count {
                if index >= 40, let (done, result) = await group.next() { results[done] = result }
                group.addTask(executorPreference: client.loop) { [self] in
                    let result = await one(index, client)
                    trace?.note("request \(index) \(result)")
                    return (index, result)
                }
            }
            for await (done, result) in group { results[done] = result }
            return results
        }
        return Outcome(results: results, kills: kills)
    }

    /// All requests, while instances are killed and started again.
    func run(_ client: RPCClient, killingIn cluster: MemoryCluster) async throws -> Outcome {
        let killer = Task(executorPreference: client.loop) { try await self.kill(in: cluster) }
        let outcome = try await run(client)
        killer.cancel()
        _ = await killer.result
        return outcome
    }

    private func one(_ index: Int, _ client: RPCClient) async -> Result {
        var random = SeededRandom(seed: seed &+ UInt64(index))
        let leavesAfter = index % 3 == 0 ? Int.random(in: 0..<Self.tokens, using: &random) : Self.tokens + 1
        var tokens: [Token] = []
        do {
            let message = request(prompt(index % Self.prompts), Self.tokens)
            let stream = try await client.stream(
                .generate, RPCPayload(metadata: message.encoded()), timeoutMicroseconds: 600_000_000)
            while tokens.count < leavesAfter, let item = try await stream.next() {
                tokens += try GenerateItem(decoding: item.metadata).tokens
            }
            guard tokens.count < leavesAfter else {
                stream.cancel()
                return .cancelled(tokens)
            }
            return .finished(tokens)
        } catch {
            return .failed("\(error)")
        }
    }

    /// Kills a random instance now and then, and starts it again, so that one of its kind is always there.
    private func kill(in cluster: MemoryCluster) async throws {
        var random = SeededRandom(seed: seed)
        while !Task.isCancelled {
            await cluster.clientLoop.pause(microseconds: UInt64.random(in: 50_000...150_000, using: &random))
            let victim = Int.random(in: 0..<4, using: &random)
            cluster.kill(victim)
            kills += 1
            trace?.note("killed \(victim)")
            await cluster.clientLoop.pause(microseconds: UInt64.random(in: 20_000...60_000, using: &random))
            try await cluster.restart(victim)
        }
    }
}
