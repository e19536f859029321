import EventLoop
import Foundation
import RPC
import Serving
import WireProtocol

/// The part of a decode step through the running services that no kernel accounts for: encoding, sockets, scheduling,
/// hops between loops and processes.
struct StepShare: Encodable {
    struct Batch: Encodable {
        let batch: Int
        let steps: Int
        let stepMilliseconds: Double
        let attentionKernelMilliseconds: Double
        let expertsKernelMilliseconds: Double
        let samplerKernelMilliseconds: Double
        /// 1 - kernels / step.
        let overhead: Double
        let tokensPerSecond: Double
    }

    let weights: String
    let batches: [Batch]
}

/// The three services of a step as processes of their own on loopback.
final class StepServices {
    let clients: StepClients
    let attentionPort: Int
    private let processes: [PeerProcess]

    /// - experts: further arguments of the experts service.
    init(model: URL, threads: Int, experts extra: [String] = []) throws {
        let common = ["--model", model.path, "--port", "0", "--threads", "\(threads)", "--parent", "\(getpid())"]
        func start(_ name: String, _ arguments: [String]) throws -> (PeerProcess, Int) {
            let process = try PeerProcess(Executables.named("ironling-\(name)"), arguments)
            return (process, try process.readPort())
        }
        let experts = try start("experts", common + extra)
        let sampler = try start("sampler", common)
        let peers = ["--experts", "127.0.0.1:\(experts.1)", "--sampler", "127.0.0.1:\(sampler.1)"]
        let attention = try start("attention", common + peers + ["--kv-tokens", "16384"])
        attentionPort = attention.1
        processes = [experts.0, sampler.0, attention.0]
        clients = StepClients([("attention", attention.1), ("experts", experts.1), ("sampler", sampler.1)])
    }

    func stop() {
        for process in processes.reversed() { process.stop() }
        clients.stop()
    }
}

/// Clients of attention, experts and sampler, in this order, on a loop of their own.
struct StepClients: Sendable {
    private let loop = UVLoop()
    private let clients: [RPCClient]
    private let roles: [String]

    init(_ peers: [(role: String, port: Int)]) {
        let loop = loop
        loop.start()
        roles = peers.map(\.role)
        clients = peers.map { role, port in
            RPCClient(
                loop: loop, host: "127.0.0.1", port: port, identity: PeerIdentity(role: "client"), role: role,
                fingerprint: "", secret: [])
        }
    }

    func stop() {
        loop.stop()
        loop.join()
    }

    /// Decodes `tokens` tokens of `batch` requests at once and compares the services' counters before and after.
    func measure(batch: Int, tokens: Int) async throws -> StepShare.Batch {
        try await Task(executorPreference: loop) {
            for client in clients { client.start() }
            for client in clients { try await client.waitReady(timeoutMicroseconds: 10_000_000) }
            try await generate(batch, 8)
            let before = try await counters()
            let started = seconds()
            try await generate(batch, tokens)
            let elapsed = seconds() - started
            let after = try await counters()
            let steps = Double(after[0]["steps", default: 0] - before[0]["steps", default: 0])
            func perStep(_ index: Int, _ name: String) -> Double {
                let nanoseconds = after[index][name, default: 0] - before[index][name, default: 0]
                return Double(nanoseconds) / steps / 1e6
            }
            let step = perStep(0, "step_nanoseconds")
            let kernels = clients.indices.map { perStep($0, "kernel_nanoseconds") }
            return StepShare.Batch(
                batch: batch, steps: Int(steps), stepMilliseconds: step, attentionKernelMilliseconds: kernels[0],
                expertsKernelMilliseconds: kernels[1], samplerKernelMilliseconds: kernels[2],
                overhead: 1 - kernels.reduce(0, +) / step, tokensPerSecond: Double(batch * tokens) / elapsed)
        }.value
    }

    /// What one of the services answers to `status`.
    func counters(of role: String) async throws -> [String: Int64] {
        let index = roles.firstIndex(of: role) ?? 0
        return try await Task(executorPreference: loop) { try await counters()[index] }.value
    }

    private func counters() async throws -> [[String: Int64]] {
        var all: [[String: Int64]] = []
        for client in clients {
            let reply = try await client.call(.status, RPCPayload(), timeoutMicroseconds: 5_000_000)
            all.append(try StatusReply(decoding: reply.metadata).counters)
        }
        return all
    }

    /// Runs `batch` requests with prompts of one token, so that their prefill weighs as much as one decode step.
    private func generate(_ batch: Int, _ tokens: Int) async throws {
        let attention = clients[0]
        try await withThrowingTaskGroup(of: Void.self) { group in
            for index in 0..<batch {
                let request = TokensRequest(Request(prompt: [UInt32(100 + index)], maximumTokens: tokens))
                group.addTask(executorPreference: loop) {
                    let stream = try await attention.stream(
                        .generateTokens, RPCPayload(metadata: request.encoded()), timeoutMicroseconds: 120_000_000)
                    while try await stream.next() != nil {}
                }
            }
            try await group.waitForAll()
        }
    }
}
