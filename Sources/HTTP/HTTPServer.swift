import EventLoop

/// An HTTP/1.1 server on one loop; everything is called on that loop.
public final class HTTPServer: @unchecked Sendable {
    private let loop: any Loop
    private let limits: HTTPLimits
    private let handler: any HTTPHandler
    private var listener: (any Listener)?
    private var connections: [Int: HTTPConnection] = [:]
    private var lastConnection = 0
    private let drainers = Waiters()
    private let load = HTTPLoad()
    /// Connections over the limit that are being told so, at most.
    private static let refusals = 64
    private var refusalCount = 0

    /// A server that hands its requests to `handler`.
    public init(loop: any Loop, limits: HTTPLimits, handler: any HTTPHandler) {
        self.loop = loop
        self.limits = limits
        self.handler = handler
    }

    /// Listens on `host:port` (0 takes a free one) and returns the port.
    ///
    /// - Throws: `LoopError` when the address cannot be listened on.
    public func listen(host: String, port: Int) throws(LoopError) -> Int {
        let listener = try loop.listen(host: host, port: port) { [weak self] in self?.accept($0) }
        self.listener = listener
        return listener.port
    }

    /// Open connections.
    public var connectionCount: Int { connections.count }

    /// In the order in which they came.
    private var connectionsInOrder: [HTTPConnection] { connections.sorted { $0.key < $1.key }.map(\.value) }

    /// Handlers that have not returned, those of clients that are gone among them.
    public var handlerCount: Int { load.handlers }

    /// Stops accepting, lets requests at hand be answered, and closes what is left after `microseconds`.
    public func drain(withinMicroseconds microseconds: UInt64) async {
        listener?.close()
        listener = nil
        for connection in connectionsInOrder { connection.drain() }
        guard !connections.isEmpty else { return }
        await drainers.wait(loop, atMostMicroseconds: microseconds) { !connections.isEmpty }
        close()
    }

    /// Stops accepting and closes every connection; handlers are cancelled.
    public func close() {
        listener?.close()
        listener = nil
        for connection in connectionsInOrder { connection.close() }
    }

    private func accept(_ stream: any ByteStream) {
        let isFull = connections.count >= limits.connections
        guard !isFull || refusalCount < Self.refusals else { return stream.abort() }
        let connection = HTTPConnection(stream: stream, loop: loop, limits: limits, handler: handler, load: load)
        guard isFull else {
            lastConnection += 1
            let number = lastConnection
            connections[number] = connection
            connection.onClosed = { [weak self] in self?.removed(number) }
            return connection.start()
        }
        refusalCount += 1
        connection.onClosed = { [weak self] in self?.refusalCount -= 1 }
        connection.start()
        connection.fail(503, "The server has \(limits.connections) connections, its limit.")
    }

    private func removed(_ number: Int) {
        connections[number] = nil
        if connections.isEmpty { drainers.wake() }
    }
}
