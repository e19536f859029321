import EventLoop
import Observability
import WireProtocol

/// Calls one peer over one connection, which it makes again, with growing pauses, whenever it is lost. Confined to its
/// loop: every method is called from a task that runs there, which those that change anything assert.
public final class RPCClient: @unchecked Sendable {
    private enum Pending {
        case unary(CheckedContinuation<Result<RPCPayload, RPCError>, Never>, deadline: UInt64)
        case stream(RPCStream, deadline: UInt64)

        var deadline: UInt64 {
            switch self {
            case .unary(_, let deadline), .stream(_, let deadline): deadline
            }
        }
    }

    /// Where the peer listens.
    public let host: String
    /// Where the peer listens.
    public let port: Int

    /// The loop it lives on.
    public let loop: any Loop
    /// The peer, as messages name it.
    private var place: String { SocketAddress.text(host, port) }
    private let identity: PeerIdentity
    private let expectation: Handshake.Expectation
    private let secret: [UInt8]
    private let limits: RPCLimits
    private var connection: Connection?
    private var pending: [UInt64: Pending] = [:]
    private var nextID: UInt64 = 1
    private let waiters = Waiters()
    private var waiterCount = 0
    private var isClosed = false
    private var failures = 0
    private var wasReady = false
    private var isPeerDraining = false
    private var sweep: (any LoopTimer)?
    /// Why the peer could not be reached last, or why the connection to it ended: with the code of the cause, which says
    /// whether to try again could help.
    public private(set) var lastError: RPCError?
    /// Called when a connection that was ready has ended, before the calls on it hear of it. On the loop.
    public var onLost: (@Sendable (RPCError) -> Void)?

    /// A client for a peer of `role` with this fingerprint (and layout, unless empty).
    public init(
        loop: any Loop, host: String, port: Int, identity: PeerIdentity, role: String, fingerprint: String,
        layout: String = "", secret: [UInt8], limits: RPCLimits = RPCLimits()
    ) {
        self.loop = loop
        self.host = host
        self.port = port
        self.identity = identity
        expectation = Handshake.Expectation(roles: [role], fingerprint: fingerprint, layout: layout)
        self.secret = secret
        self.limits = limits
    }

    /// Begins to connect, and keeps at it until `close`.
    public func start() {
        Task.immediate(executorPreference: loop) { [self] in await connect() }
    }

    /// True when a call would be sent at once.
    public var isReady: Bool { connection?.isReady == true && !isPeerDraining }

    /// Generation of the process that was connected last; it grows with every restart.
    public private(set) var peerGeneration: UInt64 = 0

    /// A peer that says nothing for less long than this, while a call to it is out, may only be busy.
    private static let patienceMicroseconds: UInt64 = 2_000_000

    /// Gives the connection up and makes another one, if the peer has said nothing since `time`, when it was asked for
    /// something: sooner than silence alone would tell that the way to it is cut, or that it is stopped.
    public func reconnect(ifSilentSince time: UInt64) {
        guard let connection, connection.isReady, connection.lastReceived <= time,
            loop.now >= time + Self.patienceMicroseconds
        else { return }
        let milliseconds = (loop.now - time) / 1000
        connection.cutOff(RPCError(.unavailable, "\(place) has not answered for \(milliseconds) ms"))
    }

    /// Calls in flight.
    public var pendingCount: Int { pending.count }

    /// True when no call is in flight or waits for the connection.
    public var isIdle: Bool { pending.isEmpty && waiterCount == 0 }

    /// Waits for the connection; throws the last reason when it does not come in time.
    public func waitReady(timeoutMicroseconds: UInt64) async throws(RPCError) {
        guard !isReady else { return }
        guard waiterCount < limits.waitingCalls else {
            throw RPCError(
                .notAccepted, "\(waiterCount) calls wait for \(place), the limit is \(limits.waitingCalls)")
        }
        waiterCount += 1
        await withTaskCancellationHandler {
            await waiters.wait(loop, atMostMicroseconds: timeoutMicroseconds) {
                !isReady && !isClosed && !Task.isCancelled
            }
        } onCancel: {
            loop.execute { [waiters] in waiters.wake() }
        }
        waiterCount -= 1
        guard isReady else {
            // Both would fail again at once, so they must not look as if a retry could help.
            if isClosed { throw RPCError(.cancelled, "the connection to \(place) was closed on this side") }
            if Task.isCancelled { throw RPCError(.cancelled, "the call was cancelled") }
            throw RPCError(.unavailable, "\(place) is not ready: \(lastError?.message ?? "still connecting")")
        }
    }

    /// Ends the connection and every call.
    public func close() {
        loop.assertIsolated()
        isClosed = true
        sweep?.cancel()
        connection?.close(RPCError(.unavailable, "the client closes"))
        failAll(RPCError(.unavailable, "the client closes"))
        waiters.wake()
    }

    /// Sends a call and waits for its answer.
    ///
    /// - Throws: `RPCError` of the peer, or what became of the connection or the time.
    public func call(
        _ method: Method, _ payload: RPCPayload, timeoutMicroseconds: UInt64, trace: TraceContext = .none
    ) async throws(RPCError) -> RPCPayload {
        let (connection, deadline) = try await prepare(payload, timeoutMicroseconds)
        let id = takeID()
        let result = await withTaskCancellationHandler {
            await withCheckedContinuation { (continuation: CheckedContinuation<Result<RPCPayload, RPCError>, Never>) in
                // Other jobs may have run since the connection was found ready.
                guard connection.isReady, !Task.isCancelled else {
                    let error =
                        Task.isCancelled
                        ? RPCError(.cancelled, "the call was cancelled")
                        : RPCError(.unavailable, "the connection to \(place) was lost")
                    return continuation.resume(returning: .failure(error))
                }
                pending[id] = .unary(continuation, deadline: deadline)
                connection.send(
                    .request, requestID: id, method: method, deadline: timeoutMicroseconds, trace: trace,
                    metadata: payload.metadata, body: payload.body)
            }
        } onCancel: {
            loop.execute { [weak self] in self?.abandon(id, RPCError(.cancelled, "the call was cancelled")) }
        }
        return try result.get()
    }

    /// Sends a call whose answer is streamed.
    ///
    /// - Throws: `RPCError` when the call could not be sent; what the peer answers comes from `RPCStream.next`.
    public func stream(
        _ method: Method, _ payload: RPCPayload, timeoutMicroseconds: UInt64, trace: TraceContext = .none
    ) async throws(RPCError) -> RPCStream {
        let (connection, deadline) = try await prepare(payload, timeoutMicroseconds)
        let id = takeID()
        let stream = RPCStream(loop: loop, window: Int(limits.streamCredit)) { [weak self] action in
            switch action {
            case .grant(let bytes):
                self?.connection?.send(.credit, requestID: id, metadata: Credit(bytes: bytes).encoded())
            case .cancel: self?.abandon(id, RPCError(.cancelled, "the stream was cancelled"))
            }
        }
        pending[id] = .stream(stream, deadline: deadline)
        connection.send(
            .request, requestID: id, method: method, deadline: timeoutMicroseconds, trace: trace,
            metadata: payload.metadata, body: payload.body)
        return stream
    }

    private func prepare(
        _ payload: RPCPayload, _ timeoutMicroseconds: UInt64
    ) async throws(RPCError) -> (Connection, UInt64) {
        loop.assertIsolated()
        let (end, overflow) = loop.now.addingReportingOverflow(timeoutMicroseconds)
        let deadline = overflow ? .max : end
        if !isReady { try await waitReady(timeoutMicroseconds: min(timeoutMicroseconds, limits.connectMicroseconds)) }
        guard let connection else { throw RPCError(.unavailable, "\(place) is not connected") }
        guard pending.count < limits.pendingCalls else {
            throw RPCError(
                .notAccepted,
                "\(pending.count) calls to \(place) are in flight, the limit is \(limits.pendingCalls)")
        }
        guard connection.waitingBytes <= limits.pendingWriteBytes / 2 else {
            throw RPCError(
                .notAccepted, "\(connection.waitingBytes) bytes wait to be sent to \(place)")
        }
        if let refusal = connection.refusal(metadata: payload.metadata, body: payload.body) { throw refusal }
        if sweep == nil { scheduleSweep() }
        return (connection, deadline)
    }

    private func takeID() -> UInt64 {
        defer { nextID += 1 }
        return nextID
    }

    // MARK: Connecting

    private func connect() async {
        guard !isClosed else { return }
        do throws(LoopError) {
            let stream = try await loop.connect(host: host, port: port, timeoutMicroseconds: 2_000_000)
            guard !isClosed else { return stream.close() }
            let connection = Connection(
                loop: loop, stream: stream,
                handshake: Handshake(identity: identity, secret: secret, expectation: expectation, limits: limits),
                isClient: true, limits: limits)
            self.connection = connection
            isPeerDraining = false
            wasReady = false
            connection.onReady = { [weak self] in
                self?.wasReady = true
                self?.failures = 0
                self?.peerGeneration = self?.connection?.peer?.generation ?? 0
                self?.waiters.wake()
            }
            connection.onMessage = { [weak self] message in self?.received(message) }
            connection.onClose = { [weak self] error in self?.lost(error) }
            connection.start()
        } catch {
            lost(RPCError(.unavailable, error.description))
        }
    }

    private func lost(_ error: RPCError) {
        loop.assertIsolated()
        connection = nil
        lastError = error
        let end = connectionEnd(error)
        if wasReady, !isClosed { onLost?(end) }
        wasReady = false
        failAll(end)
        guard !isClosed else { return }
        failures = min(failures + 1, 7)
        let pause = UInt64(10_000) << UInt64(failures - 1)
        loop.schedule(afterMicroseconds: pause / 2 + loop.random(in: 0...pause / 2)) { [weak self] in
            self?.start()
        }
    }

    /// Whatever ended a connection, and whichever side found it: its calls are lost, and nothing is said about them.
    private func connectionEnd(_ cause: RPCError) -> RPCError {
        guard cause.code != .unavailable else { return cause }
        return RPCError(.unavailable, "the connection to \(place) was ended: \(cause.message)")
    }

    // MARK: Answers

    private func received(_ message: Message) {
        let id = message.header.requestID
        switch message.header.kind {
        case .drain: isPeerDraining = true
        case .item:
            guard case .stream(let stream, _) = pending[id] else { return }
            if let excess = stream.deliver(RPCPayload(metadata: message.metadata, body: message.body)) {
                connection?.refuse(Failure(code: .limitExceeded, message: "call \(id) got \(excess)"))
            }
        case .response, .end:
            finish(id, .success(RPCPayload(metadata: message.metadata, body: message.body)))
        case .error:
            let failure = (try? Failure(decoding: message.metadata)).map { RPCError($0) }
            finish(id, .failure(failure ?? RPCError(.internal, "\(place) sent an error that cannot be read")))
        default:
            connection?.refuse(
                Failure(code: .invalidArgument, message: "a server does not send \(message.header.kind) frames"))
        }
    }

    private func finish(_ id: UInt64, _ result: Result<RPCPayload, RPCError>) {
        loop.assertIsolated()
        switch pending.removeValue(forKey: id) {
        case .unary(let continuation, _): continuation.resume(returning: result)
        case .stream(let stream, _): stream.finish(result)
        case nil: break
        }
    }

    /// Gives a call up and tells the peer.
    private func abandon(_ id: UInt64, _ error: RPCError) {
        guard pending[id] != nil else { return }
        connection?.send(.cancel, requestID: id)
        finish(id, .failure(error))
    }

    private func failAll(_ error: RPCError) {
        for id in pending.keys.sorted() { finish(id, .failure(error)) }
    }

    /// Deadlines are looked at twenty times a second while calls are in flight.
    private func scheduleSweep() {
        sweep = loop.schedule(afterMicroseconds: 50_000) { [weak self] in
            guard let self else { return }
            sweep = nil
            let now = loop.now
            for id in pending.lazy.filter({ $0.value.deadline <= now }).map(\.key).sorted() {
                abandon(id, RPCError(.deadlineExceeded, "no answer from \(place) in time"))
            }
            if !pending.isEmpty { scheduleSweep() }
        }
    }
}
