import Checkpoint
import EventLoop
import Foundation
import HybridModel
import Numerics
import RPC
import Sampling
import TestSupport
import Testing
import WireProtocol

/// The services on the in-memory network: seeded delays, pieces and cuts, virtual time, no sockets.
@Suite(.serialized) struct MemoryClusterTests {
    private let checkpoint: Checkpoint
    private let reference: GreedyReference

    init() throws {
        checkpoint = try Checkpoint(directory: Executables.goldens.appendingPathComponent("base"))
        reference = try GreedyReference(checkpoint)
    }

    private static var twoExperts: MemoryCluster.Plan {
        var plan = MemoryCluster.Plan()
        plan.experts = 2
        return plan
    }

    @Test(arguments: 1...12) func workloadsKeepTheirBitsWhateverTheNetworkDoes(seed: UInt64) throws {
        var random = SeededRandom(seed: seed)
        var plan = MemoryCluster.Plan()
        plan.experts = Int.random(in: 1...3, using: &random)
        plan.prefillChunk = 64 * Int.random(in: 1...3, using: &random)
        plan.slots = Int.random(in: 1...4, using: &random)
        let cluster = try MemoryCluster(checkpoint, seed: seed, plan)
        let workload = Workload(seed: seed, vocabulary: 256)
        let results = try cluster.withClient { try await workload.run($0) }
        for (index, request) in workload.requests.enumerated() {
            let expected = try reference.tokens(request.prompt, count: request.count)
            #expect(results[index] == expected, "seed \(seed), request \(index)")
        }
        try cluster.close()
    }

    @Test(arguments: 1...8) func cutConnectionsToExpertsAndSamplerAreMadeAgainAndTheBitsStay(seed: UInt64) throws {
        let cluster = try MemoryCluster(checkpoint, seed: seed, Self.twoExperts)
        let workload = Workload(seed: seed, vocabulary: 256)
        let results = try cluster.withClient { client in
            let cutter = Task(executorPreference: cluster.clientLoop) { () -> Int in
                var ends = 0
                var random = SeededRandom(seed: seed)
                while !Task.isCancelled {
                    let pause = UInt64.random(in: 1000...40_000, using: &random)
                    await cluster.clientLoop.pause(microseconds: pause)
                    let ports = [
                        MemoryCluster.Port.experts, MemoryCluster.Port.experts + 1, MemoryCluster.Port.sampler,
                    ]
                    if let port = ports.randomElement(using: &random) { ends += cluster.network.cut(port: port) }
                }
                return ends
            }
            let results = try await workload.run(client)
            cutter.cancel()
            let ends = await cutter.value
            #expect(ends > 0, "seed \(seed): nothing was cut")
            return results
        }
        for (index, request) in workload.requests.enumerated() {
            let expected = try reference.tokens(request.prompt, count: request.count)
            #expect(results[index] == expected, "seed \(seed), request \(index)")
        }
        try cluster.close()
    }

    @Test func aClosedGatewayClosesItsHTTPConnections() throws {
        let cluster = try MemoryCluster(checkpoint, seed: 11)
        let isOpen = try cluster.withClient { client in
            let stream = try await client.loop.connect(
                host: "memory", port: MemoryCluster.Port.http, timeoutMicroseconds: 5_000_000)
            stream.start(onBytes: { _ in }, onClose: { _ in })
            await client.loop.pause(microseconds: 1_000_000)
            return try await counters(client)["http_connections"] == 1
        }
        #expect(isOpen)
        let before = cluster.network.now
        try cluster.close()
        // Not only when its idle time was over.
        #expect(cluster.network.now - before < 5_000_000)
    }

    @Test func theSameSeedGivesTheSameRun() throws {
        let runs = try (0..<2).map { _ in
            let cluster = try MemoryCluster(checkpoint, seed: 7, Self.twoExperts)
            let workload = Workload(seed: 7, vocabulary: 256)
            _ = try cluster.withClient { try await workload.run($0) }
            try cluster.close()
            return [cluster.network.now, cluster.network.digest]
        }
        #expect(runs[0] == runs[1])
    }

    /// Services, loops and connections of a closed cluster, those of killed instances among them, go with it.
    @Test func aClosedClusterIsFreed() throws {
        let parts = try { () throws -> [Weak] in
            let cluster = try MemoryCluster(checkpoint, seed: 5, .storm)
            let parts = cluster.parts
            let outcome = try cluster.withClient { try await Storm(seed: 5, count: 300).run($0, killingIn: cluster) }
            #expect(outcome.kills > 0)
            try cluster.close()
            return (parts + cluster.parts).map(Weak.init)
        }()
        let left = parts.compactMap(\.object)
        #expect(left.isEmpty, "\(left)")
    }

    @Test(arguments: 1...6) func clientsThatLeaveInMidStreamLeaveNothingBehind(seed: UInt64) throws {
        let cluster = try MemoryCluster(checkpoint, seed: seed)
        let workload = Workload(seed: seed, vocabulary: 256)
        _ = try cluster.withClient { leaver in
            for request in workload.requests {
                let stream = try await leaver.stream(
                    .generate, RPCPayload(metadata: request.message.encoded()), timeoutMicroseconds: 60_000_000)
                _ = try await stream.next()
            }
        }
        let counters = try cluster.withClient { client in
            await cluster.clientLoop.pause(microseconds: 1_000_000)
            return try await ServiceTests.counters(client)
        }
        #expect(counters["attention0.slots_in_use"] == 0, "seed \(seed)")
        #expect(counters["attention0.pages_in_use"] == 0, "seed \(seed)")
        #expect(counters["requests"] == 0, "seed \(seed)")
        try cluster.close()
    }
}

/// Knows an object without keeping it.
private struct Weak {
    weak var object: AnyObject?

    init(_ object: AnyObject) { self.object = object }
}
