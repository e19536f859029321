import EventLoop
import Foundation
import RPC
import Testing
import WireProtocol

/// `ironling up` on free ports, and a client of its binary port.
final class RunningSet: @unchecked Sendable {
    let loop = UVLoop()
    let httpPort: Int
    let rpcPort: Int
    private let process = Process()

    init(_ model: String, _ extra: [String] = []) async throws {
        loop.start()
        let loop = loop
        (rpcPort, httpPort) = try await Task(executorPreference: loop) {
            let listeners = try (0..<2).map { _ in try loop.listen(host: "127.0.0.1", port: 0) { $0.close() } }
            defer { for listener in listeners { listener.close() } }
            return (listeners[0].port, listeners[1].port)
        }.value
        process.executableURL = Executables.folder.appendingPathComponent("ironling")
        process.arguments =
            [
                "up", "--model", Executables.modelFolder(model).path, "--rpc-port", "\(rpcPort)",
                "--http-port", "\(httpPort)",
            ] + extra
        let output = Pipe()
        process.standardOutput = output
        try process.run()
        var text = ""
        while !text.contains("ready http://") {
            let data = output.fileHandleForReading.availableData
            try #require(!data.isEmpty, "services ended before they were ready")
            text += String(decoding: data, as: UTF8.self)
        }
    }

    /// Of `ironling up`.
    var processID: Int32 { process.processIdentifier }

    func stop() -> Int32 {
        process.terminate()
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
func tokens(_ client: RPCClient, _ request: GenerateRequest) async throws -> [TokenLogprob] {
    let stream = try await client.stream(
        .generate, RPCPayload(metadata: request.encoded()), timeoutMicroseconds: 60_000_000)
    var result: [TokenLogprob] = []
    while let payload = try await stream.next() { result += try GenerateItem(decoding: payload.metadata).tokens }
    return result
}

func counters(_ client: RPCClient) async throws -> [String: Int64] {
    let reply = try await client.call(.status, RPCPayload(), timeoutMicroseconds: 5_000_000)
    return try StatusReply(decoding: reply.metadata).counters
}

func request(_ prompt: [UInt32], _ count: UInt32) -> GenerateRequest {
    var request = GenerateRequest(prompt: .tokens(prompt))
    request.maxTokens = count
    request.logprobs = 0
    request.ignoresEnd = true
    return request
}
