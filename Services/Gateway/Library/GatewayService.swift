import Checkpoint
import EventLoop
import GatewayCore
import HTTP
import Observability
import RPC
import Scheduling
import ServiceSupport
import WireProtocol

/// The gateway: text in and out, admission, routing; the binary port and the HTTP face over one completion engine.
public final class GatewayService: RPCHandler, RunningService {
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
    private let drainMicroseconds: UInt64
    private let server: CallServer
    private let web: HTTPServer

    /// A gateway over attention instances that share `secret`; it serves once `connect` and `listen` were called.
    public init(
        modelName: String, configuration: ModelConfiguration, codec: (any TextCodec)?, identity: PeerIdentity,
        attention: [InstanceAddress], secret: [UInt8], placement: PlacementPolicy = .leastLoaded,
        timeoutMicroseconds: UInt64, loop: any Loop, retries: RetryBudget.Limits = RetryBudget.Limits(),
        http: HTTPFaceOptions = HTTPFaceOptions(), drainMicroseconds: UInt64 = 30_000_000, isEmulated: Bool = false,
        defaults: RequestDefaults = RequestDefaults(),
        onChange: @escaping @Sendable (InstanceAddress, Discovery.Change) -> Void = { _, _ in }
    ) {
        router = InstanceRouter(
            instances: attention, identity: identity, secret: secret, policy: placement, retries: retries,
            loop: loop, onChange: onChange)
        let metrics = GatewayMetrics(telemetry.metrics)
        engine = CompletionEngine(
            modelName: modelName, configuration: configuration, codec: codec, router: router,
            timeoutMicroseconds: timeoutMicroseconds, telemetry: telemetry, metrics: metrics, isEmulated: isEmulated,
            onDisagreement: { [logger = http.logger] instance, error in
                logger?.warning(
                    "an instance refused or answered what it should not have",
                    ["instance": .string(instance), "link": .string("\(error.link)"), "error": .string("\(error)")])
            },
            defaults: defaults)
        face = HTTPFace(engine: engine, options: http, telemetry: telemetry, metrics: metrics)
        web = HTTPServer(loop: loop, limits: http.limits(context: configuration.maximumPositions), handler: face)
        self.drainMicroseconds = drainMicroseconds
        var limits = RPCLimits()
        limits.frames.body = Self.clientBodyBytes
        server = CallServer(identity, subject: "the gateway does", roles: ["client"], limits: limits, loop: loop)
    }

    /// Connects to the attention instances and waits until all are there. On the loop.
    ///
    /// - Throws: `RPCError` of the instance that is not there in time.
    public func connect(timeoutMicroseconds: UInt64) async throws(RPCError) {
        try await router.connect(timeoutMicroseconds: timeoutMicroseconds)
    }

    /// Whom it waits for until it is connected. On the loop.
    var waiting: [PeerWait.Group] { [router.waiting] }

    /// Accepts binary clients that share `clientSecret`; returns the port. On the loop.
    ///
    /// - Throws: `LoopError` when the address cannot be listened on.
    public func listen(host: String, port: Int, clientSecret: [UInt8]) throws(LoopError) -> Int {
        try server.listen(host: host, port: port, secret: clientSecret, for: self)
    }

    /// Accepts HTTP clients; returns the port. On the loop.
    ///
    /// - Throws: `LoopError` when the address cannot be listened on.
    public func listenHTTP(host: String, port: Int) throws(LoopError) -> Int {
        face.state.counters = { [weak self] in await self?.counters() ?? [:] }
        face.state.flush = { [weak self] in await self?.flush() ?? 0 }
        return try web.listen(host: host, port: port)
    }

    /// Answers a call of the binary port.
    ///
    /// - Throws: `RPCError` that the caller is answered with.
    public func handle(_ call: ServerCall) async throws(RPCError) -> RPCPayload {
        guard call.method == .generate else {
            return try await server.answer(call) { StatusReply(counters: await counters()) }
        }
        let message = try ServiceInputs.decoded { () throws(WireError) in
            try GenerateRequest(decoding: call.metadata)
        }
        var context = CallContext()
        context.trace = call.trace.isNone ? .random() : call.trace
        let done = try await engine.complete(Completion(try engine.request(message)), context: context) {
            item, _ throws(RPCError) in
            try await call.send(RPCPayload(metadata: item.encoded()))
        }
        return RPCPayload(metadata: done.end?.encoded() ?? [])
    }

    /// Our own counters, and those of every attention instance that answers, as `attention0.slots_in_use` and so on.
    public func counters() async -> [String: Int64] {
        var all = server.counters
        all.merge(router.counters) { $1 }
        all["requests"] = Int64(router.completionCount)
        all["http_connections"] = Int64(web.connectionCount)
        all["http_tasks"] = Int64(web.handlerCount)
        all["is_ready"] = engine.isReady ? 1 : 0
        for (instance, client) in router.state.clients.sorted(by: { $0.key < $1.key }) where client.isReady {
            let payload = try? await client.call(.status, RPCPayload(), timeoutMicroseconds: 1_000_000)
            guard let payload, let reply = try? StatusReply(decoding: payload.metadata) else { continue }
            for (name, value) in reply.counters { all["attention\(instance).\(name)"] = value }
        }
        return all
    }

    /// Has every attention instance that can be called forget what it keeps of requests; returns how many did.
    private func flush() async -> Int {
        var count = 0
        for (_, client) in router.state.clients.sorted(by: { $0.key < $1.key }) where client.isReady {
            let answer = try? await client.call(.flush, RPCPayload(), timeoutMicroseconds: 5_000_000)
            if answer != nil { count += 1 }
        }
        return count
    }

    /// Closes every connection at once. On the loop.
    public func close() {
        server.close()
        web.close()
        router.close()
    }

    /// Takes no new requests and lets streams finish.
    public func drain() async {
        // At the same time, so that streams of both faces have all of it.
        async let streams: Void = face.drain(withinMicroseconds: drainMicroseconds)
        await server.drain(withinMicroseconds: drainMicroseconds)
        await streams
        await web.drain(withinMicroseconds: 2_000_000)
    }
}
