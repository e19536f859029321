import Checkpoint
import EventLoop
import Foundation
import HTTP
import RPC
import ServiceSupport
import WireProtocol

/// The gateway: text in and out, admission, routing; the binary port and the HTTP face over one completion engine.
public final class GatewayService: RPCHandler, RunningService, @unchecked Sendable {
    /// Its command line.
    public static let options = CommandLineOptions(
        program: "ironling-gateway",
        summary: "Speaks HTTP and the binary protocol to clients, tokenizes, and routes to attention instances.",
        options: ServiceProcess.commonOptions + [
            CommandLineOption("rpc-port", value: "PORT", help: "TCP port of the binary protocol", fallback: "7000"),
            CommandLineOption("http-port", value: "PORT", help: "TCP port of HTTP", fallback: "8000"),
            CommandLineOption("attention", value: "HOST:PORT,…", help: "attention instances"),
            CommandLineOption(
                "client-secret-file", value: "FILE", help: "file with the secret that clients of the binary port share"),
            CommandLineOption("timeout", value: "SECONDS", help: "longest time of one request", fallback: "600"),
            CommandLineOption("byte-tokenizer", help: "without tokenizer.json, treat ids 0…255 as bytes of UTF-8"),
        ])

    private let engine: CompletionEngine
    private let clients: [RPCClient]
    private let face: HTTPFace
    private var server: RPCServer?
    private var web: HTTPServer?

    private init(engine: CompletionEngine, clients: [RPCClient]) {
        self.engine = engine
        self.clients = clients
        face = HTTPFace(engine: engine)
    }

    /// Connects to the attention instances and listens.
    public static func start(_ values: OptionValues, _ loop: UVLoop) async throws -> GatewayService {
        let checkpoint = try ServiceInputs.checkpoint(values)
        let identity = PeerIdentity(
            role: "gateway", instanceID: "gateway-\(getpid())", fingerprint: checkpoint.fingerprint)
        let secret = try ServiceProcess.secret(values)
        let clients = try values.addresses("attention").map { address in
            RPCClient(
                loop: loop, host: address.host, port: address.port, identity: identity, role: "attention",
                fingerprint: checkpoint.fingerprint, secret: secret)
        }
        for client in clients { client.start() }
        for client in clients { try await client.waitReady(timeoutMicroseconds: 120_000_000) }
        let engine = CompletionEngine(
            modelName: checkpoint.directory.lastPathComponent, configuration: checkpoint.configuration,
            codec: try CheckpointCodec.load(checkpoint, usesBytes: values.isOn("byte-tokenizer")), instances: clients,
            timeoutMicroseconds: UInt64(try values.integer("timeout", in: 1...86_400)) * 1_000_000)
        let service = GatewayService(engine: engine, clients: clients)
        let host = try values.required("host")
        let server = RPCServer(
            loop: loop, identity: identity, secret: try ServiceProcess.secret(values, option: "client-secret-file"),
            roles: ["client"], handler: service)
        service.server = server
        let web = HTTPServer(loop: loop, limits: HTTPLimits(), handler: service.face)
        service.web = web
        let httpPort = try web.listen(host: host, port: try values.integer("http-port", in: 0...65535))
        let port = try server.listen(host: host, port: try values.integer("rpc-port", in: 0...65535))
        ServiceProcess.announce(
            "ironling-gateway ready: HTTP port \(httpPort), binary port \(port), model \(engine.modelName)")
        return service
    }

    /// Answers a call of the binary port.
    public func handle(_ call: ServerCall) async throws(RPCError) -> RPCPayload {
        switch call.method {
        case .generate:
            let request = try ServiceInputs.decoded { () throws(WireError) in
                try GenerateRequest(decoding: call.metadata)
            }
            let end = try await engine.complete(request) { item throws(RPCError) in
                try await call.send(RPCPayload(metadata: item.encoded()))
            }
            return RPCPayload(metadata: end.encoded())
        case .status:
            return RPCPayload(metadata: StatusReply(counters: await allCounters()).encoded())
        default: throw RPCError(.unknownMethod, "the gateway does not answer method \(call.method.rawValue)")
        }
    }

    /// Our own counters, and those of every attention instance that answers, as `attention0.slots_in_use` and so on.
    private func allCounters() async -> [String: Int64] {
        var all = counters
        for (index, client) in clients.enumerated() {
            let payload = try? await client.call(.status, RPCPayload(), timeoutMicroseconds: 1_000_000)
            guard let payload, let reply = try? StatusReply(decoding: payload.metadata) else { continue }
            for (name, value) in reply.counters { all["attention\(index).\(name)"] = value }
        }
        return all
    }

    private var counters: [String: Int64] {
        [
            "requests": Int64(engine.activeCount), "http_connections": Int64(web?.connectionCount ?? 0),
            "connections": Int64(server?.connectionCount ?? 0),
            "calls": Int64(server?.callCount ?? 0), "is_ready": engine.isReady ? 1 : 0,
        ]
    }

    /// Takes no new requests and lets streams finish.
    public func drain() async {
        face.drain()
        await server?.drain(withinMicroseconds: 30_000_000)
        await web?.drain(withinMicroseconds: 5_000_000)
    }
}
