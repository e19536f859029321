import EventLoop
import Synchronization

/// An HTTP/1.1 client of one server. A connection carries one request at a time and is kept for the next; nothing is
/// sent twice. Confined to its loop: every method is called from a task that runs there.
public final class HTTPClient: Sendable {
    private let loop: any Loop
    private let host: String
    private let port: Int
    private let limits: HTTPClientLimits
    private let idle: LoopBound<[HTTPClientConnection]>

    /// A client of `host:port`.
    public init(loop: any Loop, host: String, port: Int, limits: HTTPClientLimits = HTTPClientLimits()) {
        self.loop = loop
        idle = LoopBound([], on: loop)
        self.host = host
        self.port = port
        self.limits = limits
    }

    /// Sends `request` and waits for the head of its answer, whose whole must come within `timeoutMicroseconds`. The
    /// answer is read to its end or given up by `cancel`. Cancelling the task gives the request up.
    ///
    /// - Throws: `HTTPClientError`: no connection, no answer in time, or one that breaks the rules of HTTP.
    public func send(
        _ request: HTTPRequest, timeoutMicroseconds: UInt64
    ) async throws(HTTPClientError) -> HTTPClientResponse {
        let start = loop.now
        let connection = try await takeConnection(timeoutMicroseconds)
        let spent = loop.now - start
        connection.send(
            encode(request), timeoutMicroseconds: timeoutMicroseconds > spent ? timeoutMicroseconds - spent : 0)
        do throws(HTTPClientError) {
            let head = try await connection.head()
            return HTTPClientResponse(
                status: head.status, headers: head.headers, connection: connection, limits: limits
            ) { [weak self] in self?.keep(connection) }
        } catch {
            connection.fail(error)
            throw error
        }
    }

    /// Closes the connections that are not in use.
    public func close() {
        for connection in idle.value { connection.fail(.cancelled) }
        idle.value = []
    }

    private func takeConnection(_ timeoutMicroseconds: UInt64) async throws(HTTPClientError) -> HTTPClientConnection {
        while let connection = idle.value.popLast() {
            if loop.now - connection.idleSince < limits.idleMicroseconds { return connection }
            connection.fail(.cancelled)
        }
        do throws(LoopError) {
            let stream = try await loop.connect(
                host: host, port: port, timeoutMicroseconds: min(timeoutMicroseconds, limits.connectMicroseconds))
            let connection = HTTPClientConnection(loop: loop, stream: stream, limits: limits)
            connection.onClosed = { [weak self, weak connection] in
                self?.idle.value.removeAll { $0 === connection }
            }
            connection.start()
            return connection
        } catch {
            throw .cannotConnect(error.description)
        }
    }

    private func keep(_ connection: HTTPClientConnection) {
        guard idle.value.count < limits.idleConnections else { return connection.fail(.cancelled) }
        idle.value.append(connection)
    }

    private func encode(_ request: HTTPRequest) -> [UInt8] {
        let target = request.query.isEmpty ? request.path : "\(request.path)?\(request.query)"
        var head = "\(request.method) \(HTTPText.plain(target)) HTTP/1.1\r\nHost: \(SocketAddress.text(host, port))\r\n"
        for (name, value) in request.headers { head += "\(HTTPText.plain(name)): \(HTTPText.plain(value))\r\n" }
        return Array((head + "Content-Length: \(request.body.count)\r\n\r\n").utf8) + request.body
    }
}

/// The answer to one request, read as it comes. Confined to the client's loop.
public final class HTTPClientResponse: Sendable {
    /// Status code.
    public let status: Int
    /// Headers in the order received.
    public let headers: [(name: String, value: String)]
    private let connection: HTTPClientConnection
    private let limits: HTTPClientLimits
    private let keep: @Sendable () -> Void
    private let isOver = Atomic(false)

    init(
        status: Int, headers: [(name: String, value: String)], connection: HTTPClientConnection,
        limits: HTTPClientLimits, keep: @escaping @Sendable () -> Void
    ) {
        self.status = status
        self.headers = headers
        self.connection = connection
        self.limits = limits
        self.keep = keep
    }

    deinit {
        // Whoever gives it up may do so anywhere.
        if !isOver.load(ordering: .relaxed) { connection.failFromAnywhere(.cancelled) }
    }

    /// More of the body as it comes; nil at its end, when the connection is free for the next request.
    ///
    /// - Throws: `HTTPClientError`: the connection was lost, the time is over, or the body breaks the rules of HTTP.
    public func next() async throws(HTTPClientError) -> [UInt8]? {
        guard !isOver.load(ordering: .relaxed) else { return nil }
        do throws(HTTPClientError) {
            if let bytes = try await connection.next() { return bytes }
        } catch {
            isOver.store(true, ordering: .relaxed)
            connection.fail(error)
            throw error
        }
        isOver.store(true, ordering: .relaxed)
        if connection.finish() { keep() } else { connection.fail(.cancelled) }
        return nil
    }

    /// The rest of the body; throws when it is longer than the client allows.
    public func body() async throws(HTTPClientError) -> [UInt8] {
        var body: [UInt8] = []
        while let bytes = try await next() {
            body += bytes
            guard body.count <= limits.bodyBytes else {
                cancel()
                throw .malformed("its body exceeds \(limits.bodyBytes) bytes")
            }
        }
        return body
    }

    /// Gives the answer up, which closes the connection.
    public func cancel() {
        guard !isOver.load(ordering: .relaxed) else { return }
        isOver.store(true, ordering: .relaxed)
        connection.fail(.cancelled)
    }
}
