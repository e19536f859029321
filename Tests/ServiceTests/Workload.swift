import Checkpoint
import EventLoop
import HybridModel
import Numerics
import RPC
import Sampling
import Serving
import TestSupport
import WireProtocol

/// Greedy tokens with logprobs from the single-process forward.
/// One caller at a time.
final class GreedyReference: @unchecked Sendable {
    private let forward: ReferenceForward
    private let checkpoint: Checkpoint

    init(_ checkpoint: Checkpoint) throws {
        self.checkpoint = checkpoint
        forward = try ReferenceForward(
            checkpoint: checkpoint, team: ThreadTeam(threadCount: 1), maximumRows: 512)
    }

    func tokens(_ prompt: [UInt32], count: Int) throws -> [Token] {
        let c = checkpoint.configuration
        let pages = Array(0..<(prompt.count + count + 63) / 64)
        let state = try StateMemory(configuration: c, slotCount: 1, pageCount: pages.count)
        var logits = Array(
            forward.prefill(prompt, slot: 0, pages: pages, chunk: 512, state: state).suffix(c.vocabularySize))
        var result: [Token] = []
        var sampler = TokenSampler()
        while true {
            let token = try logits.withUnsafeMutableBufferPointer { try sampler.sample($0, SampleRow()) }
            result.append(token)
            guard result.count < count else { return result }
            let position = prompt.count + result.count - 1
            let segment = Segment(slot: 0, pages: pages, position: position, tokens: [token.id])
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

        var message: GenerateRequest { request(prompt, count) }
    }

    let requests: [Request]

    init(
        seed: UInt64, vocabulary: Int, requests count: ClosedRange<Int> = 3...7, prompt: ClosedRange<Int> = 1...200,
        tokens: ClosedRange<Int> = 1...24
    ) {
        var random = SeededRandom(seed: seed)
        requests = (0..<Int.random(in: count, using: &random)).map { _ in
            Request(
                prompt: (0..<Int.random(in: prompt, using: &random)).map { _ in
                    UInt32.random(in: 0..<UInt32(vocabulary), using: &random)
                },
                count: Int.random(in: tokens, using: &random),
                delayMicroseconds: UInt64.random(in: 0...20_000, using: &random))
        }
    }

    /// All requests at their times; results in their order.
    func run(_ client: RPCClient) async throws -> [[Token]] {
        let loop = client.loop
        return try await withThrowingTaskGroup(of: (Int, [Token]).self) { group in
            for (index, request) in requests.enumerated() {
                group.addTask(executorPreference: loop) {
                    await loop.pause(microseconds: request.delayMicroseconds)
                    let result = try await tokens(client, request.message)
                    return (index, result)
                }
            }
            var results = [[Token]](repeating: [], count: requests.count)
            for try await (index, result) in group { results[index] = result }
            return results
        }
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
