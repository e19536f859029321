import EventLoop
import Foundation
import RPC
import Serving
import Testing
import WireProtocol

/// `ironling up` on free ports, and a client of its binary port.
final class RunningSet: @unchecked Sendable {
    let loop = UVLoop()
    let httpPort: Int
    let rpcPort: Int
    /// Ports of `/metrics` of sampler, experts and attention, when asked for.
    let metricsPorts: [Int]
    private let process: Process

    /// Process id of the command.
    var processID: Int32 { process.processIdentifier }

    convenience init(
        _ model: String, _ extra: [String] = [], environment: [String: String] = [:], servesMetrics: Bool = false
    ) async throws {
        try await self.init(
            Executables.modelFolder(model), extra, environment: environment, servesMetrics: servesMetrics)
    }

    convenience init(
        _ folder: URL, _ extra: [String] = [], environment: [String: String] = [:], servesMetrics: Bool = false
    ) async throws {
        try await self.init(named: folder.path, extra, environment: environment, servesMetrics: servesMetrics)
    }

    /// Serves what `--model` is given.
    init(
        named model: String, _ extra: [String] = [], environment: [String: String] = [:], servesMetrics: Bool = false
    ) async throws {
        loop.start()
        var ports: [Int] = []
        var started: Process?
        // A port that was free a moment ago may be another test's by now.
        for _ in 0..<3 where started == nil {
            ports = try await Self.freePorts(8, loop)
            let metrics = servesMetrics ? ["--metrics-port", "\(ports[2])"] : []
            started = try Self.start(
                ["up", "--model", model, "--rpc-port", "\(ports[0])", "--http-port", "\(ports[1])"] + metrics
                    + extra, environment)
        }
        process = try #require(started, "services ended before they were ready")
        (rpcPort, httpPort) = (ports[0], ports[1])
        let experts = extra.firstIndex(of: "--experts").flatMap { Int(extra[$0 + 1]) } ?? 1
        metricsPorts = servesMetrics ? (0..<experts + 2).map { [first = ports[2]] in first + $0 } : []
    }

    /// The command once it is ready; nil when it ended before.
    private static func start(_ arguments: [String], _ environment: [String: String]) throws -> Process? {
        let process = Process()
        let quiet = ["IRONLING_LOG_LEVEL": "warning"]
        process.environment = ProcessInfo.processInfo.environment.merging(quiet) { own, _ in own }
            .merging(environment) { _, new in new }
        process.executableURL = Executables.folder.appendingPathComponent("ironling")
        process.arguments = arguments
        let output = Pipe()
        process.standardOutput = output
        try process.run()
        var text = ""
        while !text.contains("ready http://") {
            let data = output.fileHandleForReading.availableData
            guard !data.isEmpty else {
                process.waitUntilExit()
                return nil
            }
            text += String(decoding: data, as: UTF8.self)
        }
        return process
    }

    /// Free ports, of which those from the third on follow each other.
    private static func freePorts(_ count: Int, _ loop: UVLoop) async throws -> [Int] {
        try await Task(executorPreference: loop) {
            while true {
                var listeners = try (0..<3).map { _ in try loop.listen(host: "127.0.0.1", port: 0) { $0.close() } }
                defer { for listener in listeners { listener.close() } }
                let first = listeners[2].port
                for port in first + 1..<first + count - 2 where port < 65536 {
                    if let next = try? loop.listen(host: "127.0.0.1", port: port, onAccept: { $0.close() }) {
                        listeners.append(next)
                    }
                }
                if listeners.count == count { return listeners.map(\.port) }
            }
        }.value
    }

    /// Stops the services, or waits for the end of a stop that was begun; returns the command's status.
    func stop(wasBegun: Bool = false) -> Int32 {
        if !wasBegun { process.terminate() }
        process.waitUntilExit()
        loop.stop()
        loop.join()
        return process.terminationStatus
    }

    func makeClient() -> RPCClient {
        RPCClient(
            loop: loop, host: "127.0.0.1", port: rpcPort, identity: PeerIdentity(role: "client"), role: "gateway",
            fingerprint: "", secret: [])
    }

    /// Runs `body` on the loop with a connected client.
    func withClient<Value: Sendable>(
        _ body: @escaping @Sendable (RPCClient) async throws -> Value
    ) async throws -> Value {
        let client = makeClient()
        return try await Task(executorPreference: loop) {
            client.start()
            defer { client.close() }
            try await client.waitReady(timeoutMicroseconds: 10_000_000)
            return try await body(client)
        }.value
    }
}

/// All tokens of one completion.
func tokens(
    _ client: RPCClient, _ request: GenerateRequest, timeoutMicroseconds: UInt64 = 60_000_000
) async throws -> [Token] {
    let stream = try await client.stream(
        .generate, RPCPayload(metadata: request.encoded()), timeoutMicroseconds: timeoutMicroseconds)
    var result: [Token] = []
    while let payload = try await stream.next() { result += try GenerateItem(decoding: payload.metadata).tokens }
    return result
}

func counters(_ client: RPCClient) async throws -> [String: Int64] {
    let reply = try await client.call(.status, RPCPayload(), timeoutMicroseconds: 5_000_000)
    return try StatusReply(decoding: reply.metadata).counters
}

func request(_ prompt: [UInt32], _ count: Int) -> GenerateRequest {
    var request = GenerateRequest(prompt: .tokens(prompt))
    request.request.maximumTokens = count
    request.request.topLogprobs = 0
    request.ignoresEnd = true
    return request
}
