import EventLoop

/// An HTTP/1.1 server on one loop; everything is called on that loop.
public final class HTTPServer: Sendable {
    private struct State {
        var listener: (any Listener)?
        var connections: [Int: HTTPConnection] = [:]
        var lastConnection = 0
        var refusalCount = 0
        let load = HTTPLoad()
    }

    private let loop: any Loop
    private let limits: HTTPLimits
    private let handler: any HTTPHandler
    private let state: LoopBound<State>
    private let drainers = Waiters()
    /// Connections over the limit that are being told so, at most.
    private static let refusals = 64

    /// A server that hands its requests to `handler`.
    public init(loop: any Loop, limits: HTTPLimits, handler: any HTTPHandler) {
        self.loop = loop
        state = LoopBound(State(), on: loop)
        self.limits = limits
        self.handler = handler
    }

    /// Listens on `host:port` (0 takes a free one) and returns the port.
    ///
    /// - Throws: `LoopError` when the address cannot be listened on.
    public func listen(host: String, port: Int) throws(LoopError) -> Int {
        let listener = try loop.listen(host: host, port: port) { [weak self] in self?.accept($0) }
        state.listener = listener
        return listener.port
    }

    /// Open connections.
    public var connectionCount: Int { state.connections.count }

    /// In the order in which they came.
    private var connectionsInOrder: [HTTPConnection] { state.connections.sorted { $0.key < $1.key }.map(\.value) }

    /// Handlers that have not returned, those of clients that are gone among them.
    public var handlerCount: Int { state.load.handlers }

    /// Stops accepting, lets requests at hand be answered, and closes what is left after `microseconds`.
    public func drain(withinMicroseconds microseconds: UInt64) async {
        state.listener?.close()
        state.listener = nil
        for connection in connectionsInOrder { connection.drain() }
        guard !state.connections.isEmpty else { return }
        await drainers.wait(loop, atMostMicroseconds: microseconds) { !state.connections.isEmpty }
        close()
    }

    /// Stops accepting and closes every connection; handlers are cancelled.
    public func close() {
        state.listener?.close()
        state.listener = nil
        for connection in connectionsInOrder { connection.close() }
    }

    private func accept(_ stream: any ByteStream) {
        let isFull = state.connections.count >= limits.connections
        guard !isFull || state.refusalCount < Self.refusals else { return stream.abort() }
        let connection = HTTPConnection(stream: stream, loop: loop, limits: limits, handler: handler, load: state.load)
        guard isFull else {
            state.lastConnection += 1
            let number = state.lastConnection
            state.connections[number] = connection
            connection.onClosed = { [weak self] in self?.removed(number) }
            return connection.start()
        }
        state.refusalCount += 1
        connection.onClosed = { [weak self] in self?.state.refusalCount -= 1 }
        connection.start()
        connection.fail(503, "The server has \(limits.connections) connections, its limit.")
    }

    private func removed(_ number: Int) {
        state.connections[number] = nil
        if state.connections.isEmpty { drainers.wake() }
    }
}
