import Checkpoint
import Emulation
import EventLoop
import Foundation
import HTTP
import Observability
import RPC
import Scheduling
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
            CommandLineOption(
                "attention", value: "HOST:PORT,…", help: "attention instances that compute prompts and decode"),
            CommandLineOption("prefill", value: "HOST:PORT,…", help: "attention instances that compute prompts"),
            CommandLineOption(
                "decode", value: "HOST:PORT,…",
                help: "attention instances that decode; in all three, a name stands for all it resolves to"),
            CommandLineOption(
                "placement", value: "POLICY", help: "least-loaded, round-robin or prefix-affine",
                fallback: "least-loaded"),
            CommandLineOption(
                "client-secret-file", value: "FILE", help: "file with the secret that clients of the binary port share"),
            CommandLineOption("timeout", value: "SECONDS", help: "longest time of one request", fallback: "600"),
            CommandLineOption(
                "drain-timeout", value: "SECONDS", help: "longest wait for streams at a stop", fallback: "30"),
            CommandLineOption("served-model-name", value: "NAME", help: "name of the model (default: its folder's)"),
            CommandLineOption(
                "api-keys-file", value: "FILE", help: "keys that HTTP clients must present, one a line: KEY [REQUESTS]"),
            CommandLineOption(
                "key-requests", value: "N", help: "requests a key may have at once if its line does not say",
                fallback: "256"),
            CommandLineOption(
                "cors-origin", value: "ORIGIN,…", help: "origins whose pages may call, or * (default: none)"),
            CommandLineOption("http-connections", value: "N", help: "open HTTP connections", fallback: "4096"),
            CommandLineOption("http-body", value: "BYTES", help: "longest body of a request", fallback: "8388608"),
            CommandLineOption("byte-tokenizer", help: "without tokenizer.json, treat ids 0…255 as bytes of UTF-8"),
        ])

    /// No method of the binary port has a body, so that clients get little room for one.
    private static let clientBodyBytes = 1 << 20

    /// "gateway".
    public let name = "gateway"
    /// Metrics, spans and requests at work.
    public let telemetry = Telemetry()
    /// Which process it is.
    public var instanceID: String { server.identity.instanceID }
    private let engine: CompletionEngine
    private let router: InstanceRouter
    private let face: HTTPFace
    private let httpLimits: HTTPLimits
    private let drainMicroseconds: UInt64
    private let server: CallServer
    private let loop: any Loop
    private var web: HTTPServer?

    /// A gateway over attention instances that share `secret`; it serves once `connect` and `listen` were called.
    public init(
        modelName: String, configuration: ModelConfiguration, codec: (any TextCodec)?, identity: PeerIdentity,
        attention: [InstanceAddress], secret: [UInt8], placement: PlacementPolicy = .leastLoaded,
        timeoutMicroseconds: UInt64, loop: any Loop,
        http: HTTPFaceOptions = HTTPFaceOptions(), drainMicroseconds: UInt64 = 30_000_000, isEmulated: Bool = false,
        onChange: @escaping @Sendable (InstanceAddress, Discovery.Change) -> Void = { _, _ in }
    ) {
        router = InstanceRouter(
            instances: attention, identity: identity, secret: secret, policy: placement, loop: loop,
            onChange: onChange)
        let metrics = GatewayMetrics(telemetry.metrics)
        engine = CompletionEngine(
            modelName: modelName, configuration: configuration, codec: codec, router: router,
            timeoutMicroseconds: timeoutMicroseconds, telemetry: telemetry, metrics: metrics, isEmulated: isEmulated)
        face = HTTPFace(engine: engine, options: http, telemetry: telemetry, metrics: metrics)
        httpLimits = http.limits
        self.drainMicroseconds = drainMicroseconds
        var limits = RPCLimits()
        limits.frames.body = Self.clientBodyBytes
        server = CallServer(identity, subject: "the gateway does", roles: ["client"], limits: limits, loop: loop)
        self.loop = loop
    }

    /// Connects to the attention instances and listens.
    public static func start(_ values: OptionValues, _ loop: UVLoop) async throws -> GatewayService {
        let model = try served(values)
        let logger = try ServiceProcess.logger(values, service: "gateway")
        let service = GatewayService(
            modelName: values.text("served-model-name") ?? model.name, configuration: model.configuration,
            codec: model.codec,
            identity: PeerIdentity(
                role: "gateway", instanceID: ServiceProcess.instanceID("gateway"), fingerprint: model.fingerprint),
            attention: try instances(values), secret: try ServiceProcess.secret(values),
            placement: try placement(values),
            timeoutMicroseconds: UInt64(try values.integer("timeout", in: 1...86_400)) * 1_000_000, loop: loop,
            http: try httpOptions(values),
            drainMicroseconds: UInt64(try values.integer("drain-timeout", in: 0...3600)) * 1_000_000,
            isEmulated: model.isEmulated,
            onChange: {
                logger.info("instances", ["of": .string("\($0.address)"), "change": LogValue(describing: $1)])
            })
        try await service.connect(timeoutMicroseconds: 120_000_000)
        let host = try values.required("host")
        let httpPort = try service.listenHTTP(host: host, port: try values.integer("http-port", in: 0...65535))
        let port = try service.listen(
            host: host, port: try values.integer("rpc-port", in: 0...65535),
            clientSecret: try ServiceProcess.secret(values, option: "client-secret-file"))
        ServiceProcess.announce(
            "ironling-gateway ready: HTTP port \(httpPort), binary port \(port), model \(service.engine.modelName)")
        return service
    }

    private struct Served {
        let name: String
        let configuration: ModelConfiguration
        let codec: CheckpointCodec?
        let fingerprint: String
        let isEmulated: Bool
    }

    private static func served(_ values: OptionValues) throws -> Served {
        guard try !ServiceInputs.isEmulated(values) else {
            let model = try EmulatedModel(try values.required("model"))
            return Served(
                name: model.servedName, configuration: model.configuration, codec: .bytes,
                fingerprint: model.fingerprint, isEmulated: true)
        }
        let checkpoint = try ServiceInputs.checkpoint(values)
        return Served(
            name: checkpoint.directory.lastPathComponent, configuration: checkpoint.configuration,
            codec: try CheckpointCodec.load(checkpoint, usesBytes: values.isOn("byte-tokenizer")),
            fingerprint: checkpoint.fingerprint, isEmulated: false)
    }

    private static func instances(_ values: OptionValues) throws(UsageError) -> [InstanceAddress] {
        var instances: [InstanceAddress] = []
        for (option, role) in [("attention", RequestRole.both), ("prefill", .prefillOnly), ("decode", .decodeOnly)] {
            guard values.text(option) != nil else { continue }
            instances += try values.addresses(option).map { InstanceAddress(role: role, address: $0) }
        }
        let roles = instances.map(\.role)
        guard roles.contains(.both) || (roles.contains(.prefillOnly) && roles.contains(.decodeOnly)) else {
            throw UsageError("--attention, or --prefill and --decode, must name at least one instance each")
        }
        return instances
    }

    private static func placement(_ values: OptionValues) throws(UsageError) -> PlacementPolicy {
        let name = try values.required("placement")
        guard let policy = PlacementPolicy(rawValue: name) else {
            let names = PlacementPolicy.allCases.map(\.rawValue).joined(separator: ", ")
            throw UsageError("--placement is one of \(names), not \"\(name)\"")
        }
        return policy
    }

    private static func httpOptions(_ values: OptionValues) throws -> HTTPFaceOptions {
        var options = HTTPFaceOptions()
        options.logger = try ServiceProcess.logger(values, service: "gateway")
        options.limits.connections = try values.integer("http-connections", in: 1...65536)
        options.limits.bodyBytes = try values.integer("http-body", in: 1024...(64 << 20))
        options.corsOrigins = Set(values.text("cors-origin")?.split(separator: ",").map(String.init) ?? [])
        if let path = values.text("api-keys-file") {
            let limit = try values.integer("key-requests", in: 1...1_000_000)
            do {
                options.keys = try APIKeys(parsing: String(contentsOfFile: path, encoding: .utf8), limit: limit)
            } catch {
                throw StartError("--api-keys-file \(path): \(error)")
            }
        }
        return options
    }

    /// Connects to the attention instances and waits until all are there. On the loop.
    public func connect(timeoutMicroseconds: UInt64) async throws(RPCError) {
        try await router.connect(timeoutMicroseconds: timeoutMicroseconds)
    }

    /// Accepts binary clients that share `clientSecret`; returns the port. On the loop.
    public func listen(host: String, port: Int, clientSecret: [UInt8]) throws(LoopError) -> Int {
        try server.listen(host: host, port: port, secret: clientSecret, for: self)
    }

    /// Accepts HTTP clients; returns the port. On the loop.
    public func listenHTTP(host: String, port: Int) throws(LoopError) -> Int {
        face.counters = { [weak self] in await self?.counters() ?? [:] }
        let web = HTTPServer(loop: loop, limits: httpLimits, handler: face)
        self.web = web
        return try web.listen(host: host, port: port)
    }

    /// Answers a call of the binary port.
    public func handle(_ call: ServerCall) async throws(RPCError) -> RPCPayload {
        guard call.method == .generate else { return try await server.answer(call, counters) }
        let request = try ServiceInputs.decoded { () throws(WireError) in
            try GenerateRequest(decoding: call.metadata)
        }
        var context = CallContext()
        context.trace = call.trace.isNone ? .random() : call.trace
        let end = try await engine.complete(request, context: context) { item throws(RPCError) in
            try await call.send(RPCPayload(metadata: item.encoded()))
        }
        return RPCPayload(metadata: end.encoded())
    }

    /// Our own counters, and those of every attention instance that answers, as `attention0.slots_in_use` and so on.
    public func counters() async -> [String: Int64] {
        var all = server.counters
        all.merge(router.counters) { $1 }
        all["requests"] = Int64(engine.activeCount)
        all["http_connections"] = Int64(web?.connectionCount ?? 0)
        all["http_tasks"] = Int64(web?.handlerCount ?? 0)
        all["is_ready"] = engine.isReady ? 1 : 0
        for member in router.members.all where member.client.isReady {
            let payload = try? await member.client.call(.status, RPCPayload(), timeoutMicroseconds: 1_000_000)
            guard let payload, let reply = try? StatusReply(decoding: payload.metadata) else { continue }
            for (name, value) in reply.counters { all["attention\(member.rank).\(name)"] = value }
        }
        return all
    }

    /// Closes every connection at once. On the loop.
    public func close() {
        server.close()
        router.close()
    }

    /// Takes no new requests and lets streams finish.
    public func drain() async {
        // At the same time, so that streams of both faces have all of it.
        async let streams: Void = face.drain(loop: loop, withinMicroseconds: drainMicroseconds)
        await server.drain(withinMicroseconds: drainMicroseconds)
        await streams
        await web?.drain(withinMicroseconds: 2_000_000)
    }
}
