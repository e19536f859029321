import EventLoop
import Foundation
import HTTP
import RPC
import Serving
import WireProtocol

/// What the gateway costs: the same completions directly from an attention instance, through the gateway's binary port,
/// and through HTTP, in turns.
struct GatewayCost: Encodable {
    /// Medians of completions of one token, one after the other, microseconds.
    struct Request: Encodable {
        let directMicroseconds: Double
        let binaryMicroseconds: Double
        let httpMicroseconds: Double
    }

    /// Streams at once.
    struct Streams: Encodable {
        let streams: Int
        /// Time per token of all streams together, microseconds.
        let directMicroseconds: Double
        let httpMicroseconds: Double
        /// Mean time from a token's arrival at the gateway until it is handed to its client's connection.
        let deliveryMicroseconds: Double
        /// Processor time of the gateway's process per token.
        let processorMicroseconds: Double
    }

    let model: String
    let request: Request
    let streams: [Streams]
}

/// The four services as processes, and clients of attention and of the gateway's two faces.
final class GatewayBench {
    private let services: StepServices
    private let gateway: PeerProcess
    private let clients: GatewayClients

    /// Services of the checkpoint in `model`.
    init(model: URL, threads: Int) throws {
        services = try StepServices(model: model, threads: threads)
        gateway = try PeerProcess(
            Executables.named("ironling-gateway"),
            [
                "--model", model.path, "--attention", "127.0.0.1:\(services.attentionPort)", "--http-port", "0",
                "--rpc-port", "0", "--parent", "\(getpid())", "--log-level", "error", "--byte-tokenizer",
            ])
        var ports: [Int] = []
        while ports.count < 2 {
            let line = try gateway.readLine()
            guard line.contains("ready") else { continue }
            ports = line.split { !$0.isNumber }.compactMap { Int($0) }
        }
        clients = GatewayClients(attention: services.attentionPort, http: ports[0], binary: ports[1])
    }

    func stop() {
        clients.stop()
        gateway.stop()
        services.stop()
    }

    func run(_ model: String, _ progress: Progress) async throws -> GatewayCost {
        let clients = clients
        try await clients.connect()
        progress("gateway: completions of one token")
        let request = try await clients.requests(count: 400)
        var streams: [GatewayCost.Streams] = []
        for count in [1, 8, 32] {
            progress("gateway: \(count) streams")
            streams.append(try await measure(count, tokens: count == 1 ? 256 : 96))
        }
        return GatewayCost(model: model, request: request, streams: streams)
    }

    private func measure(_ count: Int, tokens: Int) async throws -> GatewayCost.Streams {
        let rounds = 4
        try await clients.http(count, tokens: 16)
        var (direct, http, processor) = (0.0, 0.0, 0.0)
        let before = try await clients.delivery()
        for _ in 0..<rounds {
            var start = seconds()
            try await clients.direct(count, tokens: tokens)
            direct += seconds() - start
            let used = try gateway.processorSeconds
            start = seconds()
            try await clients.http(count, tokens: tokens)
            http += seconds() - start
            processor += try gateway.processorSeconds - used
        }
        let after = try await clients.delivery()
        let all = Double(rounds * count * tokens)
        return GatewayCost.Streams(
            streams: count, directMicroseconds: 1e6 * direct / all, httpMicroseconds: 1e6 * http / all,
            deliveryMicroseconds: 1e6 * (after.sum - before.sum) / max(1, after.count - before.count),
            processorMicroseconds: 1e6 * processor / all)
    }
}

/// Clients on a loop of their own.
private struct GatewayClients: Sendable {
    private let loop = UVLoop()
    private let attention: RPCClient
    private let binary: RPCClient
    private let web: HTTPClient

    init(attention: Int, http: Int, binary: Int) {
        let loop = loop
        loop.start()
        func client(_ role: String, _ port: Int) -> RPCClient {
            RPCClient(
                loop: loop, host: "127.0.0.1", port: port, identity: PeerIdentity(role: "client"), role: role,
                fingerprint: "", secret: [])
        }
        self.attention = client("attention", attention)
        self.binary = client("gateway", binary)

        web = HTTPClient(loop: loop, host: "127.0.0.1", port: http)
    }

    func stop() {
        loop.stop()
        loop.join()
    }

    func connect() async throws {
        try await onLoop {
            for client in [attention, binary] {
                client.start()
                try await client.waitReady(timeoutMicroseconds: 10_000_000)
            }
        }
    }

    /// Medians over completions of one token, taking turns.
    func requests(count: Int) async throws -> GatewayCost.Request {
        try await onLoop {
            var samples = [Samples(), Samples(), Samples()]
            for round in 0..<count + 20 {
                for kind in 0..<3 {
                    let start = seconds()
                    switch kind {
                    case 0: try await directStream(0, 1)
                    case 1: try await binaryStream(1)
                    default: try await httpStream(0, 1)
                    }
                    if round >= 20 { samples[kind].values.append(1e6 * (seconds() - start)) }
                }
            }
            return GatewayCost.Request(
                directMicroseconds: samples[0].median, binaryMicroseconds: samples[1].median,
                httpMicroseconds: samples[2].median)
        }
    }

    func direct(_ count: Int, tokens: Int) async throws {
        try await together(count) { try await directStream($0, tokens) }
    }

    func http(_ count: Int, tokens: Int) async throws {
        try await together(count) { try await httpStream($0, tokens) }
    }

    /// Sum and count of the gateway's histogram of deliveries.
    func delivery() async throws -> (sum: Double, count: Double) {
        try await onLoop {
            let response = try await web.send(
                HTTPRequest(method: "GET", path: "/metrics"), timeoutMicroseconds: 10_000_000)
            let text = String(decoding: try await response.body(), as: UTF8.self)
            func figure(_ name: String) throws -> Double {
                let line = text.split(separator: "\n").first {
                    $0.hasPrefix("ironling_gateway_delivery_seconds_\(name) ")
                }
                guard let value = line?.split(separator: " ").last.flatMap({ Double($0) }) else {
                    throw BenchError("the gateway does not show ironling_gateway_delivery_seconds_\(name)")
                }
                return value
            }
            return (try figure("sum"), try figure("count"))
        }
    }

    private func together(_ count: Int, _ body: @escaping @Sendable (Int) async throws -> Void) async throws {
        try await onLoop {
            try await withThrowingTaskGroup(of: Void.self) { group in
                for index in 0..<count { group.addTask(executorPreference: loop) { try await body(index) } }
                try await group.waitForAll()
            }
        }
    }

    private func onLoop<Value: Sendable>(_ body: @escaping @Sendable () async throws -> Value) async throws -> Value {
        try await Task(executorPreference: loop) { try await body() }.value
    }

    private func directStream(_ index: Int, _ tokens: Int) async throws {
        let request = TokensRequest(Request(prompt: [UInt32(10 + index)], maximumTokens: tokens))
        let stream = try await attention.stream(
            .generateTokens, RPCPayload(metadata: request.encoded()), timeoutMicroseconds: 60_000_000)
        while try await stream.next() != nil {}
    }

    private func binaryStream(_ tokens: Int) async throws {
        var request = GenerateRequest(prompt: .tokens([10]))
        (request.request.maximumTokens, request.ignoresEnd) = (tokens, true)
        let stream = try await binary.stream(
            .generate, RPCPayload(metadata: request.encoded()), timeoutMicroseconds: 60_000_000)
        while try await stream.next() != nil {}
    }

    private func httpStream(_ index: Int, _ tokens: Int) async throws {
        let body =
            "{\"prompt\":[\(10 + index)],\"max_tokens\":\(tokens),\"temperature\":0,\"ignore_eos\":true,\"stream\":true}"
        let response = try await web.send(
            HTTPRequest(
                method: "POST", path: "/v1/completions", headers: [("Content-Type", "application/json")],
                body: Array(body.utf8)), timeoutMicroseconds: 60_000_000)
        guard response.status == 200 else { throw BenchError("the gateway answered HTTP \(response.status)") }
        while try await response.next() != nil {}
    }
}
