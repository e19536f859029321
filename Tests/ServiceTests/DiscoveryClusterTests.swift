import Checkpoint
import EventLoop
import Foundation
import RPC
import Serving
import TestSupport
import Testing
import WireProtocol

/// Instances that are found by name, join and leave while requests run, on the in-memory network.
@Suite(.serialized) struct DiscoveryClusterTests {
    private let checkpoint: Checkpoint
    private let reference: GreedyReference

    init() throws {
        checkpoint = try Checkpoint(directory: Executables.goldens.appendingPathComponent("base"))
        reference = try GreedyReference(checkpoint)
    }

    private func expectBits(_ results: [[Token]], _ workload: Workload, seed: UInt64) throws {
        for (index, request) in workload.requests.enumerated() {
            let expected = try reference.tokens(request.prompt, count: request.count)
            #expect(results[index] == expected, "seed \(seed), request \(index)")
        }
    }

    /// One of three replicas of either shard is always dying or coming back.
    @Test(arguments: 1...6) func noTokenIsLostWithAnExpertsReplica(seed: UInt64) throws {
        var plan = MemoryCluster.Plan()
        (plan.experts, plan.replicas) = (seed % 2 == 0 ? 1 : 2, 3)
        let cluster = try MemoryCluster(checkpoint, seed: seed, plan)
        let workload = Workload(seed: seed, vocabulary: 256, requests: 6...8, prompt: 1...150, tokens: 8...24)
        let results = try cluster.withClient { [shards = plan.experts, replicas = plan.replicas] client in
            let killer = Task(executorPreference: cluster.clientLoop) { () -> Int in
                var random = SeededRandom(seed: seed)
                var kills = 0
                while !Task.isCancelled {
                    let shard = Int.random(in: 0..<shards, using: &random)
                    let replica = Int.random(in: 0..<replicas, using: &random)
                    cluster.killExperts(shard, replica)
                    kills += 1
                    await cluster.clientLoop.pause(microseconds: UInt64.random(in: 1000...20_000, using: &random))
                    try await cluster.restartExperts(shard, replica)
                    await cluster.clientLoop.pause(microseconds: UInt64.random(in: 1000...20_000, using: &random))
                }
                return kills
            }
            let results = try await workload.run(client)
            killer.cancel()
            let kills = try await killer.value
            #expect(kills > 1, "seed \(seed): \(kills) kills")
            return results
        }
        try expectBits(results, workload, seed: seed)
        let counters = try cluster.withClient { client in
            await cluster.clientLoop.pause(microseconds: 5_000_000)
            return try await ServiceTests.counters(client)
        }
        #expect(counters["attention0.experts_replicas_ready"] == Int64(plan.experts * plan.replicas), "seed \(seed)")
        #expect(counters["attention0.slots_in_use"] == 0 && counters["requests"] == 0, "seed \(seed)")
        try cluster.close()
    }

    /// A second decode instance joins, then the first one dies and is told of no more; requests run all the time.
    @Test(arguments: 1...4) func aDecodeInstanceJoinsAndAnotherOneLeavesUnderLoad(seed: UInt64) throws {
        var plan = MemoryCluster.Plan()
        (plan.both, plan.prefill, plan.decode, plan.hasNames) = (0, 1, 2, true)
        let cluster = try MemoryCluster(checkpoint, seed: seed, plan)
        let workload = Workload(seed: seed, vocabulary: 256, requests: 5...6, prompt: 1...100, tokens: 8...16)
        let names = try cluster.withClient { client in
            func ranks() async throws -> Set<String> {
                Set(
                    try await ServiceTests.counters(client).keys.compactMap { $0.split(separator: ".").first }
                        .filter { $0.hasPrefix("attention") }.map(String.init))
            }
            var seen: [Set<String>] = []
            cluster.announceInstances([0, 1])
            await cluster.clientLoop.pause(microseconds: 4_000_000)
            seen.append(try await ranks())
            async let first = workload.run(client)
            cluster.announceInstances([0, 1, 2])
            await cluster.clientLoop.pause(microseconds: 4_000_000)
            seen.append(try await ranks())
            try expectBits(try await first, workload, seed: seed)
            async let second = workload.run(client)
            await cluster.clientLoop.pause(microseconds: 2000)
            cluster.kill(1)
            cluster.announceInstances([0, 2])
            try expectBits(try await second, workload, seed: seed)
            await cluster.clientLoop.pause(microseconds: 4_000_000)
            seen.append(try await ranks())
            try await cluster.restart(1)
            cluster.announceInstances([0, 1, 2])
            await cluster.clientLoop.pause(microseconds: 4_000_000)
            seen.append(try await ranks())
            try expectBits(try await workload.run(client), workload, seed: seed)
            return seen
        }
        #expect(names.map(\.count) == [2, 3, 2, 3], "seed \(seed)")
        #expect(names[3] == ["attention0", "attention1", "attention2"], "seed \(seed): a rank is given again")
        let counters = try cluster.withClient { try await ServiceTests.counters($0) }
        for rank in 0..<3 { #expect(counters["attention\(rank).slots_in_use"] == 0, "seed \(seed), rank \(rank)") }
        try cluster.close()
    }
}
