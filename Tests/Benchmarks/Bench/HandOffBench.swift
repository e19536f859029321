import EventLoop
import Foundation
import RPC
import Serving
import WireProtocol

/// What it costs a long prompt's first token that its state moves from a prefill to a decode instance.
struct HandOffCost: Encodable {
    let promptTokens: Int
    /// Time to the second token, the first one that the decode instance computes from the state it received.
    let colocatedMilliseconds: Double
    let handedOffMilliseconds: Double
    /// Time to the first token.
    let colocatedFirstMilliseconds: Double
    let handedOffFirstMilliseconds: Double
    let rounds: Int

    /// Added to the time to the first token, as a part of it.
    var added: Double { handedOffFirstMilliseconds / colocatedFirstMilliseconds - 1 }
    /// Added to the time to the second token, as a part of it.
    var addedToSecond: Double { handedOffMilliseconds / colocatedMilliseconds - 1 }
}

/// One instance that takes both parts of a request and a pair that shares them, over the same experts and sampler; the
/// same prompt goes to either in turn.
final class HandOffBench {
    private static let promptTokens = 4096

    private let processes: [PeerProcess]
    private let loop = UVLoop()
    private let both: RPCClient
    private let decode: RPCClient
    private let prefill: String

    init(model: URL, threads: Int) throws {
        let common = ["--model", model.path, "--port", "0", "--threads", "\(threads)", "--parent", "\(getpid())"]
        func start(_ name: String, _ arguments: [String]) throws -> (PeerProcess, Int) {
            let process = try PeerProcess(
                Executables.named("ironling-\(name)"), common + ["--log-level", "warning"] + arguments)
            return (process, try process.readPort())
        }
        let experts = try start("experts", [])
        let sampler = try start("sampler", [])
        let peers = ["--experts", "127.0.0.1:\(experts.1)", "--sampler", "127.0.0.1:\(sampler.1)"]
        let instances = try ["both", "prefill", "decode"].map {
            try start("attention", peers + ["--kv-tokens", "16384", "--role", $0])
        }
        processes = [experts.0, sampler.0] + instances.map(\.0)
        prefill = "127.0.0.1:\(instances[1].1)"
        let loop = loop
        loop.start()
        let clients = [instances[0].1, instances[2].1].map { port in
            RPCClient(
                loop: loop, host: "127.0.0.1", port: port, identity: PeerIdentity(role: "client"), role: "attention",
                fingerprint: "", secret: [])
        }
        (both, decode) = (clients[0], clients[1])
    }

    func stop() {
        for process in processes.reversed() { process.stop() }
        loop.stop()
        loop.join()
    }

    /// Medians over `rounds`, the two in turn.
    func run(rounds: Int, _ progress: Progress) async throws -> HandOffCost {
        var first = [Samples(), Samples()]
        var second = [Samples(), Samples()]
        for round in -1..<rounds {
            progress("hand-off of \(Self.promptTokens) tokens: round \(round + 1) of \(rounds)")
            for (side, client) in [both, decode].enumerated() {
                let times = try await times(client, round: round, prefill: side == 0 ? "" : prefill)
                guard round >= 0 else { continue }
                first[side].values.append(1000 * times.first)
                second[side].values.append(1000 * times.second)
            }
        }
        return HandOffCost(
            promptTokens: Self.promptTokens, colocatedMilliseconds: second[0].median,
            handedOffMilliseconds: second[1].median, colocatedFirstMilliseconds: first[0].median,
            handedOffFirstMilliseconds: first[1].median, rounds: rounds)
    }

    private func times(_ client: RPCClient, round: Int, prefill: String) async throws -> (first: Double, second: Double)
    {
        let prompt = (0..<Self.promptTokens).map { UInt32(($0 * 7919 + (round + 1) * 104_729 + 13) % 32_000) }
        let request = TokensRequest(Request(prompt: prompt, maximumTokens: 2), prefill: prefill)
        let payload = RPCPayload(metadata: request.encoded())
        return try await Task(executorPreference: loop) {
            client.start()
            try await client.waitReady(timeoutMicroseconds: 10_000_000)
            let started = seconds()
            let stream = try await client.stream(.generateTokens, payload, timeoutMicroseconds: 120_000_000)
            var times: [Double] = []
            while try await stream.next() != nil { times.append(seconds() - started) }
            guard times.count == 2 else { throw BenchError("hand-off: \(times.count) tokens instead of 2") }
            return (times[0], times[1])
        }.value
    }
}
