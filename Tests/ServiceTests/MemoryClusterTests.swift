import Checkpoint
import EventLoop
import Foundation
import HybridModel
import Numerics
import RPC
import Sampling
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

    @Test(arguments: 1...12) func workloadsKeepTheirBitsWhateverTheNetworkDoes(seed: UInt64) throws {
        var random = SeededGenerator(seed: seed)
        let cluster = try MemoryCluster(
            checkpoint, seed: seed, experts: Int.random(in: 1...3, using: &random),
            prefillChunk: 64 * Int.random(in: 1...3, using: &random), slots: Int.random(in: 1...4, using: &random))
        let workload = Workload(seed: seed, vocabulary: 256)
        let results = try cluster.withClient { try await workload.run($0) }
        for (index, request) in workload.requests.enumerated() {
            let expected = try reference.tokens(request.prompt, count: request.count)
            #expect(results[index] == expected, "seed \(seed), request \(index)")
        }
        try cluster.close()
        #expect(cluster.network.openStreamCount == 0 && cluster.network.listenerCount == 0, "seed \(seed)")
        #expect(cluster.network.eventCount == 0, "seed \(seed): timers are left")
    }

    @Test(arguments: 1...8) func cutConnectionsToExpertsAndSamplerAreMadeAgainAndTheBitsStay(seed: UInt64) throws {
        let cluster = try MemoryCluster(checkpoint, seed: seed, experts: 2)
        let workload = Workload(seed: seed, vocabulary: 256)
        let results = try cluster.withClient { client in
            let cutter = Task(executorPreference: cluster.clientLoop) { () -> Int in
                var ends = 0
                var random = SeededGenerator(seed: seed)
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
    }

    @Test func theSameSeedGivesTheSameVirtualTime() throws {
        let times = try (0..<2).map { _ in
            let cluster = try MemoryCluster(checkpoint, seed: 7, experts: 2)
            let workload = Workload(seed: 7, vocabulary: 256)
            _ = try cluster.withClient { try await workload.run($0) }
            return cluster.network.now
        }
        #expect(times[0] == times[1])
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
    }
}

/// Greedy tokens with logprobs from the single-process forward.
final class GreedyReference {
    private let forward: ReferenceForward
    private let checkpoint: Checkpoint

    init(_ checkpoint: Checkpoint) throws {
        self.checkpoint = checkpoint
        forward = try ReferenceForward(
            checkpoint: checkpoint, team: ThreadTeam(threadCount: 1), maximumRows: 512)
    }

    func tokens(_ prompt: [UInt32], count: Int) throws -> [TokenLogprob] {
        let c = checkpoint.configuration
        let pages = Array(0..<(prompt.count + count + 63) / 64)
        let state = try StateMemory(configuration: c, slotCount: 1, pageCount: pages.count)
        var logits = Array(
            forward.prefill(prompt, slot: 0, pages: pages, chunk: 512, state: state).suffix(c.vocabularySize))
        var result: [TokenLogprob] = []
        var sampler = TokenSampler()
        var parameters = SamplingParameters()
        parameters.temperature = 0
        while true {
            let token = try logits.withUnsafeMutableBufferPointer { try sampler.sample($0, parameters) }
            result.append(TokenLogprob(id: token.id, logprob: token.logprob))
            guard result.count < count else { return result }
            let position = prompt.count + result.count - 1
            let segment = Segment(slot: 0, pages: pages, position: position, tokens: [token.id], isPrefill: false)
            logits = forward.logits([segment], state: state)
        }
    }
}

/// A few requests that arrive over time.
struct Workload: Sendable {
    struct Request: Sendable {
        let prompt: [UInt32]
        let count: Int
        let delayMicroseconds: UInt64

        var message: GenerateRequest { request(prompt, UInt32(count)) }
    }

    let requests: [Request]

    init(seed: UInt64, vocabulary: Int) {
        var random = SeededGenerator(seed: seed)
        requests = (0..<Int.random(in: 3...7, using: &random)).map { _ in
            Request(
                prompt: (0..<Int.random(in: 1...200, using: &random)).map { _ in
                    UInt32.random(in: 0..<UInt32(vocabulary), using: &random)
                },
                count: Int.random(in: 1...24, using: &random),
                delayMicroseconds: UInt64.random(in: 0...20_000, using: &random))
        }
    }

    /// All requests at their times; results in their order.
    func run(_ client: RPCClient) async throws -> [[TokenLogprob]] {
        let loop = client.loop
        return try await withThrowingTaskGroup(of: (Int, [TokenLogprob]).self) { group in
            for (index, request) in requests.enumerated() {
                group.addTask(executorPreference: loop) {
                    await loop.pause(microseconds: request.delayMicroseconds)
                    let result = try await tokens(client, request.message)
                    return (index, result)
                }
            }
            var results = [[TokenLogprob]](repeating: [], count: requests.count)
            for try await (index, result) in group { results[index] = result }
            return results
        }
    }
}

/// A small generator for tests: the same numbers for the same seed everywhere.
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        var value = state ^ (state >> 33)
        value = value &* 0xFF51_AFD7_ED55_8CCD
        return value ^ (value >> 29)
    }
}

extension Loop {
    /// Waits on this loop's clock.
    func pause(microseconds: UInt64) async {
        await withCheckedContinuation { continuation in
            execute { [self] in schedule(afterMicroseconds: microseconds) { continuation.resume() } }
        }
    }
}
