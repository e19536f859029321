import EventLoop
import RPC
import Synchronization
import Testing
import WireProtocol

/// Something that happens once and can be waited for.
final class Signal: Sendable {
    private struct State {
        var isFired = false
        var waiters: [CheckedContinuation<Void, Never>] = []
    }

    private let state = Mutex(State())

    var isFired: Bool { state.withLock { $0.isFired } }

    func fire() {
        let waiters = state.withLock { state in
            state.isFired = true
            defer { state.waiters.removeAll() }
            return state.waiters
        }
        for waiter in waiters { waiter.resume() }
    }

    func wait() async {
        await withCheckedContinuation { continuation in
            let isFired = state.withLock { state in
                if !state.isFired { state.waiters.append(continuation) }
                return state.isFired
            }
            if isFired { continuation.resume() }
        }
    }
}

extension Method {
    static let echo = Method(rawValue: 100)
    static let items = Method(rawValue: 101)
    static let untilCancelled = Method(rawValue: 102)
    static let untilReleased = Method(rawValue: 103)
    static let refuse = Method(rawValue: 104)
    static let large = Method(rawValue: 105)
    static let trace = Method(rawValue: 106)
}

/// Answers the methods above and says how far it got.
final class TestHandler: RPCHandler {
    static let itemBytes = 1000

    let entered = Signal()
    let cancelled = Signal()
    let release = Signal()
    let itemsSent = Atomic<Int>(0)

    func handle(_ call: ServerCall) async throws(RPCError) -> RPCPayload {
        switch call.method {
        case .echo: return RPCPayload(metadata: call.metadata, body: call.body)
        case .items:
            for index in 0..<100 {
                let item = [UInt8](repeating: UInt8(index), count: Self.itemBytes)
                try await call.send(RPCPayload(metadata: item))
                itemsSent.add(1, ordering: .sequentiallyConsistent)
            }
            return RPCPayload(metadata: [1, 2, 3])
        case .untilCancelled:
            entered.fire()
            await withTaskCancellationHandler {
                await cancelled.wait()
            } onCancel: {
                cancelled.fire()
            }
            throw RPCError(.cancelled, "cancelled as wanted")
        case .untilReleased:
            entered.fire()
            await release.wait()
            return RPCPayload(metadata: call.metadata)
        case .trace: return RPCPayload(metadata: Array(call.trace.traceparent(span: 1).utf8))
        case .large: return RPCPayload(body: AlignedBuffer(count: 10_000))
        case .refuse: throw RPCError(.limitExceeded, "too many of them")
        default: throw RPCError(.invalidArgument, "method \(call.method.rawValue) is not known")
        }
    }
}

/// Runs `body` on `loop`.
func on<Value: Sendable>(
    _ loop: UVLoop, _ body: @escaping @Sendable () async throws -> Value
) async throws -> Value {
    try await Task(executorPreference: loop) { try await body() }.value
}

/// A server and clients in one process, each side on a loop of its own.
final class RPCFixture: Sendable {
    static let secret = Array("shared".utf8)
    static let wait: UInt64 = 20_000_000

    let serverLoop = UVLoop()
    let clientLoop = UVLoop()
    let handler = TestHandler()
    let limits: RPCLimits

    init(limits: RPCLimits = RPCLimits()) {
        self.limits = limits
        serverLoop.start()
        clientLoop.start()
    }

    func listen(port: Int = 0) async throws -> (RPCServer, Int) {
        try await on(serverLoop) { [self] in
            let server = RPCServer(
                loop: serverLoop, identity: PeerIdentity(role: "sampler", instanceID: "s0", fingerprint: "f00d"),
                secret: Self.secret, roles: ["attention"], limits: limits, handler: handler)
            return (server, try server.listen(host: "127.0.0.1", port: port))
        }
    }

    func client(
        port: Int, role: String = "attention", expecting: String = "sampler", fingerprint: String = "f00d",
        secret: [UInt8] = RPCFixture.secret
    ) async throws -> RPCClient {
        try await on(clientLoop) { [self] in
            let client = RPCClient(
                loop: clientLoop, host: "127.0.0.1", port: port,
                identity: PeerIdentity(role: role, instanceID: "a0", fingerprint: fingerprint), role: expecting,
                fingerprint: fingerprint, secret: secret, limits: limits)
            client.start()
            return client
        }
    }

    /// The number of connections once it is `count`; gives up after some seconds.
    func connectionCount(of server: RPCServer, reaching count: Int) async throws -> Int {
        try await on(serverLoop) { [self] in
            let end = serverLoop.now + 10_000_000
            while server.connectionCount != count, serverLoop.now < end { await serverLoop.pause(microseconds: 1000) }
            return server.connectionCount
        }
    }

    func stop() {
        for loop in [clientLoop, serverLoop] {
            loop.stop()
            loop.join()
        }
    }
}

/// Runs `body` on the client's loop with a server on a port. All of it runs there: a test that comes back to the threads
/// that all tests share after every step waits each time until all the others that are ready have had theirs.
func withServer(
    limits: RPCLimits = RPCLimits(), _ body: @escaping @Sendable (RPCFixture, RPCServer, Int) async throws -> Void
) async throws {
    let fixture = RPCFixture(limits: limits)
    defer { fixture.stop() }
    try await on(fixture.clientLoop) {
        let (server, port) = try await fixture.listen()
        try await body(fixture, server, port)
        try await on(fixture.serverLoop) { server.close() }
    }
}

/// Runs `body` with a server and a client that is connected to it.
func withPair(
    limits: RPCLimits = RPCLimits(), _ body: @escaping @Sendable (RPCFixture, RPCServer, RPCClient) async throws -> Void
) async throws {
    try await withServer(limits: limits) { fixture, server, port in
        let client = try await fixture.client(port: port)
        try await client.waitReady(timeoutMicroseconds: RPCFixture.wait)
        try await body(fixture, server, client)
        client.close()
    }
}

/// The error `body` throws, if it is the protocol's.
func failure(_ body: () async throws -> Void) async -> RPCError? {
    do {
        try await body()
        return nil
    } catch { return error as? RPCError }
}
