import EventLoop

/// An HTTP/1.1 server on one loop; everything is called on that loop.
public final class HTTPServer: @unchecked Sendable {
    private let loop: any Loop
    private let limits: HTTPLimits
    private let handler: any HTTPHandler
    private var listener: (any Listener)?
    private var connections: [ObjectIdentifier: HTTPConnection] = [:]
    private var waiters: [CheckedContinuation<Void, Never>] = []

    /// A server that hands its requests to `handler`.
    public init(loop: any Loop, limits: HTTPLimits, handler: any HTTPHandler) {
        self.loop = loop
        self.limits = limits
        self.handler = handler
    }

    /// Listens on `host:port` (0 takes a free one) and returns the port.
    public func listen(host: String, port: Int) throws(LoopError) -> Int {
        let listener = try loop.listen(host: host, port: port) { [weak self] in self?.accept($0) }
        self.listener = listener
        return listener.port
    }

    /// Open connections.
    public var connectionCount: Int { connections.count }

    /// Stops accepting, lets requests at hand be answered, and closes what is left after `microseconds`.
    public func drain(withinMicroseconds microseconds: UInt64) async {
        listener?.close()
        listener = nil
        for connection in Array(connections.values) { connection.drain() }
        guard !connections.isEmpty else { return }
        let timer = loop.schedule(afterMicroseconds: microseconds) { [weak self] in
            self?.close()
            self?.wake()
        }
        await withCheckedContinuation { waiters.append($0) }
        timer.cancel()
    }

    /// Stops accepting and closes every connection; handlers are cancelled.
    public func close() {
        listener?.close()
        listener = nil
        for connection in Array(connections.values) { connection.close() }
    }

    private func accept(_ stream: any ByteStream) {
        let connection = HTTPConnection(stream: stream, loop: loop, limits: limits, handler: handler)
        let key = ObjectIdentifier(connection)
        let isFull = connections.count >= limits.connections
        if !isFull {
            connections[key] = connection
            connection.onClosed = { [weak self] in self?.removed(key) }
        }
        connection.start()
        if isFull { connection.fail(503, "The server has \(limits.connections) connections, its limit.") }
    }

    private func removed(_ key: ObjectIdentifier) {
        connections[key] = nil
        if connections.isEmpty { wake() }
    }

    private func wake() {
        let waiting = waiters
        waiters = []
        for waiter in waiting { waiter.resume() }
    }
}
