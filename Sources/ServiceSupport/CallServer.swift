import EventLoop
import RPC
import WireProtocol

/// The part of a service that takes calls: who the service is, whom it lets in, what all services answer alike, and how
/// it stops. A service holds one, answers its own methods and leaves every other call to it. Confined to its loop.
public final class CallServer: Sendable {
    /// Who the service is to its peers.
    public let identity: PeerIdentity
    /// Where calls are answered.
    public let loop: any Loop
    private let subject: String
    private let roles: [String]
    private let limits: RPCLimits
    private let server: LoopBound<RPCServer?>

    /// A server that lets peers of `roles` in, once it listens.
    ///
    /// - subject: how a refusal begins, such as "experts do".
    public init(
        _ identity: PeerIdentity, subject: String, roles: [String], limits: RPCLimits = RPCLimits(), loop: any Loop
    ) {
        self.identity = identity
        self.subject = subject
        self.roles = roles
        self.limits = limits
        self.loop = loop
        server = LoopBound(nil, on: loop)
    }

    /// Accepts calls of peers that share `secret`, for `service` to answer; returns the port.
    ///
    /// - Throws: `LoopError` when the address cannot be listened on.
    public func listen(
        host: String, port: Int, secret: [UInt8], for service: any RPCHandler
    ) throws(LoopError) -> Int {
        let server = RPCServer(
            loop: loop, identity: identity, secret: secret, roles: roles, limits: limits, handler: service)
        self.server.value = server
        return try server.listen(host: host, port: port)
    }

    /// Answers `status`, and refuses any other method.
    ///
    /// - Throws: `RPCError` unknownMethod.
    public func answer(_ call: ServerCall, _ status: () async -> StatusReply) async throws(RPCError) -> RPCPayload {
        guard call.method == .status else {
            throw RPCError(.unknownMethod, "\(subject) not answer method \(call.method.rawValue)")
        }
        return RPCPayload(metadata: await status().encoded())
    }

    /// Connections, calls in flight, those that stream, handlers that have not returned; none before it listens.
    public var counters: [String: Int64] {
        guard let server = server.value else { return [:] }
        return [
            "connections": Int64(server.connectionCount), "calls": Int64(server.callCount),
            "streams": Int64(server.streamCount), "tasks": Int64(server.taskCount),
        ]
    }

    /// Closes every connection at once.
    public func close() { server.value?.close() }

    /// Takes no further calls and lets those that run finish.
    public func drain(withinMicroseconds microseconds: UInt64) async {
        await server.value?.drain(withinMicroseconds: microseconds)
    }
}
