import EventLoop
import WireProtocol

/// Answers the calls of a server's peers.
public protocol RPCHandler: AnyObject, Sendable {
    /// Answers one call, on the server's loop. For a streamed method the payload is that of the end frame. The task is
    /// cancelled when the caller cancels or disconnects.
    func handle(_ call: ServerCall) async throws(RPCError) -> RPCPayload
}

/// One call on the server's side.
public final class ServerCall: @unchecked Sendable {
    /// What is asked for.
    public let method: Method
    /// Encoded request.
    public let metadata: [UInt8]
    /// Raw tensors of the request.
    public let body: AlignedBuffer?
    /// Who asks.
    public let peer: Hello
    /// Microseconds the caller waits, from the moment the call came; 0 is no limit.
    public let deadlineMicroseconds: UInt64

    private let requestID: UInt64
    private weak var connection: Connection?
    private var credit: Int
    private var waiter: CheckedContinuation<Void, Never>?
    private(set) var isOver = false
    private(set) var isStream = false

    init(_ message: Message, peer: Hello, connection: Connection) {
        method = message.header.method
        metadata = message.metadata
        body = message.body
        requestID = message.header.requestID
        deadlineMicroseconds = message.header.deadlineMicroseconds
        self.peer = peer
        self.connection = connection
        credit = Int(peer.streamCredit)
    }

    /// Sends an item of a streamed answer; waits while the caller has granted no bytes.
    public func send(_ item: RPCPayload) async throws(RPCError) {
        isStream = true
        while credit <= 0, !isOver {
            await withCheckedContinuation { waiter = $0 }
        }
        guard !isOver, let connection else { throw RPCError(.cancelled, "the caller is gone") }
        credit -= item.metadata.count + (item.body?.count ?? 0)
        connection.send(.item, requestID: requestID, metadata: item.metadata, body: item.body)
    }

    func grant(_ bytes: UInt32) {
        credit += Int(bytes)
        wake()
    }

    func end() {
        isOver = true
        wake()
    }

    private func wake() {
        let waiter = self.waiter
        self.waiter = nil
        waiter?.resume()
    }
}

/// Accepts connections on a loop and hands their calls to a handler.
public final class RPCServer: @unchecked Sendable {
    private struct Active {
        let call: ServerCall
        var task: Task<Void, Never>?
    }

    private final class Session: @unchecked Sendable {
        let connection: Connection
        var calls: [UInt64: Active] = [:]

        init(_ connection: Connection) { self.connection = connection }
    }

    private let loop: any Loop
    private let identity: PeerIdentity
    private let secret: [UInt8]
    private let roles: [String]
    private let limits: RPCLimits
    private let handler: any RPCHandler
    private var listener: (any Listener)?
    private var sessions: [ObjectIdentifier: Session] = [:]
    private var isDraining = false
    private var onIdle: (() -> Void)?

    /// A server for peers of the given roles (all when empty) that share `secret` and, unless they are clients, the
    /// model fingerprint.
    public init(
        loop: any Loop, identity: PeerIdentity, secret: [UInt8], roles: [String], limits: RPCLimits = RPCLimits(),
        handler: any RPCHandler
    ) {
        self.loop = loop
        self.identity = identity
        self.secret = secret
        self.roles = roles
        self.limits = limits
        self.handler = handler
    }

    /// Listens; returns the port. On the loop.
    public func listen(host: String, port: Int) throws(LoopError) -> Int {
        let listener = try loop.listen(host: host, port: port) { [weak self] stream in self?.accept(stream) }
        self.listener = listener
        return listener.port
    }

    /// Connections that are open.
    public var connectionCount: Int { sessions.count }

    /// Calls in flight.
    public var callCount: Int { sessions.values.reduce(0) { $0 + $1.calls.count } }

    /// Takes no further calls and returns when those in flight are done or `microseconds` have passed.
    public func drain(withinMicroseconds microseconds: UInt64) async {
        isDraining = true
        listener?.close()
        for session in sessions.values { session.connection.send(.drain) }
        guard callCount > 0 else { return }
        await withCheckedContinuation { continuation in
            let timer = loop.schedule(afterMicroseconds: microseconds) { [weak self] in self?.becomeIdle() }
            onIdle = {
                timer.cancel()
                continuation.resume()
            }
        }
    }

    /// Closes everything.
    public func close() {
        listener?.close()
        for session in sessions.values { session.connection.close(RPCError(.unavailable, "the server closes")) }
    }

    private func accept(_ stream: any ByteStream) {
        let handshake = Handshake(
            identity: identity, secret: secret, expectation: .init(roles: roles, fingerprint: identity.fingerprint),
            limits: limits)
        let connection = Connection(
            loop: loop, stream: stream, handshake: handshake, isClient: false, limits: limits)
        guard sessions.count < limits.connections else {
            connection.start()
            connection.refuse(
                Failure(code: .notAccepted, message: "the server is at its limit of \(limits.connections) connections"))
            return
        }
        let session = Session(connection)
        sessions[ObjectIdentifier(connection)] = session
        connection.onMessage = { [unowned self, unowned session] message in received(message, session) }
        connection.onClose = { [weak self] _ in self?.closed(session) }
        connection.start()
    }

    private func closed(_ session: Session) {
        sessions[ObjectIdentifier(session.connection)] = nil
        for active in session.calls.values {
            active.call.end()
            active.task?.cancel()
        }
        session.calls.removeAll()
        checkIdle()
    }

    private func received(_ message: Message, _ session: Session) {
        let id = message.header.requestID
        switch message.header.kind {
        case .request: begin(message, session)
        case .cancel:
            guard let active = session.calls[id] else { return }
            active.call.end()
            active.task?.cancel()
        case .credit:
            guard let credit = try? Credit(decoding: message.metadata) else { return }
            session.calls[id]?.call.grant(credit.bytes)
        default:
            session.connection.refuse(
                Failure(code: .invalidArgument, message: "a client does not send \(message.header.kind) frames"))
        }
    }

    private func begin(_ message: Message, _ session: Session) {
        let id = message.header.requestID
        guard let peer = session.connection.peer else { return }
        guard id != 0, session.calls[id] == nil else {
            session.connection.refuse(
                Failure(code: .invalidArgument, message: "request id \(id) is zero or already in use"))
            return
        }
        guard !isDraining, session.calls.count < limits.pendingCalls else {
            let reason =
                isDraining
                ? "the service is draining" : "the limit of \(limits.pendingCalls) calls in flight is reached"
            session.connection.send(
                .error, requestID: id, metadata: Failure(code: .notAccepted, message: reason).encoded())
            return
        }
        let call = ServerCall(message, peer: peer, connection: session.connection)
        session.calls[id] = Active(call: call)
        let task = Task.immediate(executorPreference: loop) { [self] in
            let result: Result<RPCPayload, RPCError>
            do throws(RPCError) { result = .success(try await handler.handle(call)) } catch { result = .failure(error) }
            finish(id, call, result, session)
        }
        session.calls[id]?.task = task
    }

    private func finish(_ id: UInt64, _ call: ServerCall, _ result: Result<RPCPayload, RPCError>, _ session: Session) {
        guard session.calls.removeValue(forKey: id) != nil else { return }
        switch result {
        case .success(let payload):
            session.connection.send(
                call.isStream ? .end : .response, requestID: id, metadata: payload.metadata, body: payload.body)
        case .failure(let error):
            session.connection.send(
                .error, requestID: id, metadata: Failure(code: error.code, message: error.message).encoded())
        }
        call.end()
        checkIdle()
    }

    private func checkIdle() {
        if isDraining, callCount == 0 { becomeIdle() }
    }

    private func becomeIdle() {
        let onIdle = self.onIdle
        self.onIdle = nil
        onIdle?()
    }
}
