import Checkpoint
import EventLoop
import Foundation
import RPC
import TestSupport
import Testing
import WireProtocol

/// Bytes that are lost or changed between services, with two instances of everything but the sampler: no stream is lost,
/// no client is blamed, and nobody is sent another token than in an undisturbed run.
@Suite(.serialized) struct LinkFaultTests {
    private let checkpoint: Checkpoint
    private let reference: GreedyReference

    init() throws {
        checkpoint = try Checkpoint(directory: Executables.goldens.appendingPathComponent("base"))
        reference = try GreedyReference(checkpoint)
    }

    private struct Run {
        var plan = MemoryCluster.Plan()
        var faults: [FaultRelay.Fault] = []

        /// One fault of every kind on every link comes round every forty seeds, a second one is drawn.
        init(seed: UInt64, _ random: inout SeededRandom) {
            let isSplit = seed % 2 == 0
            (plan.both, plan.prefill, plan.decode) = isSplit ? (0, 2, 2) : (2, 0, 0)
            plan.experts = Int.random(in: 1...2, using: &random)
            plan.replicas = 2
            plan.prefillChunk = 64
            let links = FaultRelay.Link.allCases.filter { isSplit || $0 != .decodeToPrefill }
            for number in 0...Int.random(in: 0...1, using: &random) {
                let place = Int(seed / 2) + number * 7
                let link = links[place % links.count]
                faults.append(
                    FaultRelay.Fault(
                        link: link, isAnswer: Bool.random(using: &random),
                        harm: FaultRelay.Harm.allCases[place / links.count % FaultRelay.Harm.allCases.count],
                        frame: Int.random(in: 1...Self.frames(link), using: &random)))
            }
        }

        private static func frames(_ link: FaultRelay.Link) -> Int {
            switch link {
            case .gatewayToAttention: 6
            case .decodeToPrefill: 3
            case .attentionToExperts: 60
            case .attentionToSampler: 12
            }
        }
    }

    private func makeCluster(_ run: Run, seed: UInt64) throws -> (MemoryCluster, FaultRelay) {
        var plan = run.plan
        let relay = Kept<FaultRelay>()
        plan.prepare = { [plan] network in
            let own = FaultRelay(network, seed: seed, run.faults)
            relay.value = own
            for index in plan.roles.indices {
                let port = MemoryCluster.Port.attention + index
                try own.stand(before: "127.0.0.1:\(port)", port: port)
            }
            for shard in 0..<plan.experts {
                for replica in 0..<plan.replicas {
                    try own.stand(
                        before: "10.2.\(shard).\(replica + 1):\(MemoryCluster.Port.experts)",
                        port: MemoryCluster.Port.experts + replica * plan.experts + shard)
                }
            }
            try own.stand(before: "127.0.0.1:\(MemoryCluster.Port.sampler)", port: MemoryCluster.Port.sampler)
        }
        let cluster = try MemoryCluster(checkpoint, seed: seed, plan)
        return (cluster, try #require(relay.value))
    }

    @Test func noFaultOfALinkLosesAStreamOrChangesAToken() throws {
        var seen: Set<[String]> = []
        for seed in UInt64(1)...240 {
            var random = SeededRandom(seed: seed)
            let run = Run(seed: seed, &random)
            let (cluster, relay) = try makeCluster(run, seed: seed)
            let workload = Workload(
                seed: seed, vocabulary: 256, requests: 3...4, prompt: 1...80, tokens: 6...12)
            let before = cluster.network.now
            relay.isArmed = true
            do {
                let results = try cluster.withClient { try await workload.run($0) }
                for (index, request) in workload.requests.enumerated() {
                    let expected = try reference.tokens(request.prompt, count: request.count)
                    #expect(results[index] == expected, "seed \(seed), request \(index)")
                }
            } catch {
                Issue.record("seed \(seed), \(run.faults): \(error)")
            }
            let seconds = (cluster.network.now - before) / 1_000_000
            #expect(seconds < 30, "seed \(seed), \(run.faults): \(seconds) s")
            for fault in relay.done { seen.insert(["\(fault.link)", "\(fault.harm)"]) }
            relay.close()
            try cluster.close()
        }
        let kinds = FaultRelay.Link.allCases.count * FaultRelay.Harm.allCases.count
        #expect(seen.count == kinds, "only \(seen.count) of \(kinds) kinds of faults came about")
    }

    /// Six streams that break at once are one failure of their instance, not six.
    @Test func aLostConnectionCountsOnceHoweverManyStreamsWereOnIt() throws {
        var plan = MemoryCluster.Plan()
        (plan.both, plan.slots, plan.pages) = (2, 8, 48)
        let cluster = try MemoryCluster(checkpoint, seed: 1, plan)
        let (before, after) = try cluster.withClient { client in
            let streams = (0..<12).map { index in
                Task(executorPreference: client.loop) { try await tokens(client, request([UInt32(index)], 60)) }
            }
            await client.loop.pause(microseconds: 20_000)
            let before = try await counters(client)
            #expect(cluster.network.cut(port: MemoryCluster.Port.attention) > 0)
            await client.loop.pause(microseconds: 20_000)
            let after = try await counters(client)
            for stream in streams { #expect(try await stream.value.count == 60) }
            return (before, after)
        }
        #expect((before["instance0.placed_requests"] ?? 0) > 3, "\(before)")
        #expect(after["instance0.breaker_state"] == 0)
        try cluster.close()
    }
}

/// Holds what a closure made. One caller at a time.
private final class Kept<Value>: @unchecked Sendable {
    var value: Value?
}
