import EventLoop
import Observability
import RPC
import WireProtocol

/// A service that answers attention instances on the loop it computes on, so that no call changes threads, and keeps
/// nothing between calls: experts and sampler. It says what it computes; all the rest is here and in its `host`.
public protocol ReplicaService: RPCHandler, RunningService {
    /// What it is made of beside its computation.
    var host: ReplicaHost { get }
    /// What was computed so far, by name. On the host's loop.
    func computeCounters() async -> [String: Int64]
}

/// What a replica of experts or sampler is made of beside its computation.
public final class ReplicaHost: Sendable {
    /// "experts" or "sampler".
    public let name: String
    /// Takes its calls.
    public let server: CallServer
    /// Metrics, spans and requests at work.
    public let telemetry = Telemetry()
    /// Measures its calls.
    public let calls: CallTelemetry
    /// Bytes held for good and the limit on rows, by name.
    public let memory: [String: Int64]
    /// Rows that a call may have.
    let maximumRows: Int

    /// The host of a replica that answers and computes on `loop`. The role of `identity` is its name.
    ///
    /// - subject: how a refusal begins, such as "experts do".
    public init(
        _ identity: PeerIdentity, subject: String, memory: [String: Int64], maximumRows: Int, loop: any Loop
    ) {
        name = identity.role
        server = CallServer(identity, subject: subject, roles: ["attention", "client"], loop: loop)
        calls = CallTelemetry(telemetry, service: identity.role)
        self.memory = memory.merging(["maximum_rows": Int64(maximumRows)]) { $1 }
        self.maximumRows = maximumRows
    }
}

extension ReplicaService {
    /// "experts" or "sampler".
    public var name: String { host.name }
    /// Which process it is.
    public var instanceID: String { host.server.identity.instanceID }
    /// Metrics, spans and requests at work.
    public var telemetry: Telemetry { host.telemetry }

    /// Accepts calls of attention instances that share `secret`; returns the port.
    ///
    /// - Throws: `LoopError` when the address cannot be listened on.
    public func listen(host address: String, port: Int, secret: [UInt8]) async throws(LoopError) -> Int {
        let server = host.server
        let result = await Task(executorPreference: server.loop) { () -> Result<Int, LoopError> in
            do throws(LoopError) {
                return .success(try server.listen(host: address, port: port, secret: secret, for: self))
            } catch {
                return .failure(error)
            }
        }.value
        return try result.get()
    }

    /// Makes the service that `--mode` asks for on a loop of its own, listens, and announces that with the sentence that
    /// comes with it.
    ///
    /// - emulated: what makes an emulated one; nil where there is no simulator.
    /// - Throws: what making the service throws, `UsageError` or `LoopError`.
    public static func start(
        _ values: OptionValues, emulated: ((OptionValues, UVLoop) throws -> (Self, String))?,
        computing: (OptionValues, UVLoop) throws -> (Self, String)
    ) async throws -> Self {
        let hot = UVLoop()
        hot.start()
        let values = try ServiceProcess.hold(["port"], values, on: hot)
        let (service, sentence) =
            try ServiceInputs.isEmulated(values)
            ? try ServiceInputs.required(emulated)(values, hot) : try computing(values, hot)
        service.host.calls.logger = try ServiceProcess.logger(values, service: service.name)
        try ServiceProcess.logMemory(values, service: service.name, service.host.memory)
        let port = try await service.listen(
            host: try values.host(), port: try values.integer("port", in: 0...65535),
            secret: try ServiceProcess.secret(values))
        ServiceProcess.announce(service, port: port, sentence)
        return service
    }

    /// Answers a call that is not for its computation.
    ///
    /// - Throws: `RPCError` unknownMethod.
    public func answer(_ call: ServerCall) async throws(RPCError) -> RPCPayload {
        try await host.server.answer(call) {
            StatusReply(counters: await counters(), maximumRows: host.maximumRows)
        }
    }

    /// Those of the server, what is held for good, and what was computed.
    public func counters() async -> [String: Int64] {
        await Task(executorPreference: host.server.loop) { [self] in
            let held = host.memory.merging(host.server.counters) { $1 }
            return held.merging(await computeCounters()) { $1 }
        }.value
    }

    /// Closes every connection, as soon as its loop gets to it. From any thread.
    public func close() {
        let server = host.server
        server.loop.execute { server.close() }
    }

    /// Stops taking calls and lets those that run finish.
    public func drain() async {
        let server = host.server
        await Task(executorPreference: server.loop) { await server.drain(withinMicroseconds: 10_000_000) }.value
    }
}
