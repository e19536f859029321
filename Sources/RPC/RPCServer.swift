import EventLoop
import WireProtocol

/// Answers the calls of a server's peers.
public protocol RPCHandler: AnyObject, Sendable {
    /// Answers one call, on the server's loop. For a streamed method the payload is that of the end frame. The task is
    /// cancelled when the caller cancels or disconnects.
    func handle(_ call: ServerCall) async throws(RPCError) -> RPCPayload
}

/// Accepts connections on a loop and hands their calls to a handler. Confined to that loop, which everything that opens,
/// takes or ends something asserts.
public final class RPCServer: @unchecked Sendable {
    private struct Active {
        let call: ServerCall
        var task: Task<Void, Never>?
    }

    private final class Session: Sendable {
        let number: Int
        let connection: Connection
        private let active: LoopBound<[UInt64: Active]>

        var calls: [UInt64: Active] {
            get { active.value }
            _modify { yield &active.value }
        }

        init(_ number: Int, _ connection: Connection, on loop: any Loop) {
            active = LoopBound([:], on: loop)
            self.number = number
            self.connection = connection
        }

        func end() {
            for (_, active) in calls.sorted(by: { $0.key < $1.key }) {
                active.call.end()
                active.task?.cancel()
            }
            calls.removeAll()
        }
    }

    private let loop: any Loop
    private let identity: PeerIdentity
    private let secret: [UInt8]
    private let roles: [String]
    private let limits: RPCLimits
    /// Until `close`: whoever handles the calls often owns the server.
    private var handler: (any RPCHandler)?
    private var listener: (any Listener)?
    private var sessions: [Int: Session] = [:]
    private var lastSession = 0
    private var isDraining = false
    private let drainers = Waiters()
    private var sweep: (any LoopTimer)?
    /// Calls in flight.
    public private(set) var callCount = 0
    /// Handlers that have not returned, those of callers that are gone among them.
    public private(set) var taskCount = 0

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
    ///
    /// - Throws: `LoopError` when the address cannot be listened on.
    public func listen(host: String, port: Int) throws(LoopError) -> Int {
        loop.assertIsolated()
        let listener = try loop.listen(host: host, port: port) { [weak self] stream in self?.accept(stream) }
        self.listener = listener
        return listener.port
    }

    /// Connections that are open.
    public var connectionCount: Int { sessions.count }

    /// Calls in flight whose answer has begun to stream.
    public var streamCount: Int {
        sessions.values.reduce(0) { $0 + $1.calls.values.count { $0.call.isStream } }
    }

    /// In the order in which they came: what happens to all of them must not happen in that of their hashes.
    private var sessionsInOrder: [Session] { sessions.sorted { $0.key < $1.key }.map(\.value) }

    /// Takes no further calls and returns when those in flight are done or `microseconds` have passed.
    public func drain(withinMicroseconds microseconds: UInt64) async {
        isDraining = true
        listener?.close()
        for session in sessionsInOrder { session.connection.send(.drain) }
        guard callCount > 0 else { return }
        await drainers.wait(loop, atMostMicroseconds: microseconds) { callCount > 0 }
    }

    /// Closes everything.
    public func close() {
        loop.assertIsolated()
        listener?.close()
        sweep?.cancel()
        for session in sessionsInOrder { session.connection.close(RPCError(.unavailable, "the server closes")) }
        handler = nil
    }

    private func accept(_ stream: any ByteStream) {
        loop.assertIsolated()
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
        lastSession += 1
        let session = Session(lastSession, connection, on: loop)
        sessions[session.number] = session
        connection.onMessage = { [weak self, weak session] message in
            if let self, let session { received(message, session) }
        }
        connection.onClose = { [weak self] _ in
            if let self { closed(session) } else { session.end() }
        }
        connection.start()
    }

    private func closed(_ session: Session) {
        loop.assertIsolated()
        sessions[session.number] = nil
        callCount -= session.calls.count
        session.end()
        checkIdle()
    }

    private func received(_ message: Message, _ session: Session) {
        loop.assertIsolated()
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
        guard let peer = session.connection.peer, let handler else { return }
        guard id != 0, session.calls[id] == nil else {
            session.connection.refuse(
                Failure(code: .invalidArgument, message: "request id \(id) is zero or already in use"))
            return
        }
        if let reason = refusal(session) {
            session.connection.send(
                .error, requestID: id, metadata: Failure(code: .notAccepted, message: reason).encoded())
            return
        }
        let call = ServerCall(message, peer: peer, connection: session.connection, loop: loop, limits: limits)
        session.calls[id] = Active(call: call)
        callCount += 1
        taskCount += 1
        if sweep == nil { scheduleSweep() }
        let task = Task.immediate(executorPreference: loop) { [self] in
            let result: Result<RPCPayload, RPCError>
            do throws(RPCError) { result = .success(try await handler.handle(call)) } catch { result = .failure(error) }
            taskCount -= 1
            if session.calls[id]?.call === call { finish(id, call, result, session) }
        }
        session.calls[id]?.task = task
    }

    private func refusal(_ session: Session) -> String? {
        if isDraining { return "the service is draining" }
        if session.calls.count >= limits.pendingCalls {
            return "the limit of \(limits.pendingCalls) calls in flight on a connection is reached"
        }
        // A caller that cancels and asks again must not pile up handlers that have not noticed yet.
        if taskCount >= limits.serverCalls { return "the limit of \(limits.serverCalls) calls in flight is reached" }
        return nil
    }

    private func finish(_ id: UInt64, _ call: ServerCall, _ result: Result<RPCPayload, RPCError>, _ session: Session) {
        session.calls[id] = nil
        callCount -= 1
        var result = result
        if case .success(let payload) = result,
            let refusal = session.connection.refusal(metadata: payload.metadata, body: payload.body)
        {
            result = .failure(refusal)
        }
        switch result {
        case .success(let payload):
            session.connection.send(
                call.isStream ? .end : .response, requestID: id, metadata: payload.metadata, body: payload.body)
        case .failure(let error):
            session.connection.send(.error, requestID: id, metadata: error.failure.encoded())
        }
        call.end()
        checkIdle()
    }

    /// Deadlines and callers that take nothing are looked at four times a second while calls are in flight.
    private func scheduleSweep() {
        sweep = loop.schedule(afterMicroseconds: 250_000) { [weak self] in
            guard let self else { return }
            sweep = nil
            for session in sessionsInOrder { expire(session) }
            if callCount > 0 { scheduleSweep() }
        }
    }

    private func expire(_ session: Session) {
        let now = loop.now
        let due = session.calls.compactMap { id, active in active.call.expiry(now: now).map { (id, active, $0) } }
        for (id, active, error) in due.sorted(by: { $0.0 < $1.0 }) {
            finish(id, active.call, .failure(error), session)
            active.task?.cancel()
        }
    }

    private func checkIdle() {
        if callCount == 0 { drainers.wake() }
    }
}
