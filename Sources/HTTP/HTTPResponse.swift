import EventLoop

/// The answer to one request. Confined to the server's loop, where handlers run; everything that is sent asserts that.
public final class HTTPResponse: @unchecked Sendable {
    private let loop: any Loop
    private weak var connection: HTTPConnection?
    private let isHead: Bool
    let isVersion11: Bool
    let keepsAlive: Bool
    /// Whether a status has been sent.
    public private(set) var isStarted = false
    private(set) var isEnded = false
    /// The status that was sent.
    public private(set) var status: Int?
    /// Sent with the head of the response, whatever sends it.
    public var headers: [(String, String)] = []
    private var filler: StreamFiller?
    private var silence: StreamSilence?

    init(connection: HTTPConnection, loop: any Loop, isHead: Bool, isVersion11: Bool, keepsAlive: Bool) {
        self.connection = connection
        self.loop = loop
        self.isHead = isHead
        self.isVersion11 = isVersion11
        self.keepsAlive = keepsAlive
    }

    /// Sends a whole response; does nothing if one was started.
    public func send(status: Int, contentType: String, headers: [(String, String)] = [], body: [UInt8]) {
        loop.assertIsolated()
        guard !isStarted else { return }
        isStarted = true
        isEnded = true
        self.status = status
        let bodiless = status == 204 || status == 304
        let length = bodiless ? [] : [("Content-Length", String(body.count))]
        var bytes = head(status, contentType, length + headers)
        if !isHead, !bodiless { bytes += body }
        connection?.send(bytes)
    }

    /// Sends an error with the body clients of the OpenAI interface expect.
    public func sendError(status: Int, type: String, message: String, headers: [(String, String)] = []) {
        send(
            status: status, contentType: "application/json", headers: headers,
            body: HTTPText.errorBody(type: type, message: message))
    }

    /// Starts a chunked response (until close for HTTP/1.0); does nothing if one was started. `filler` is sent when the
    /// stream has been silent for long, and to learn whether a client that has ended its side still reads.
    public func beginStream(
        status: Int, contentType: String, headers: [(String, String)] = [], filler: StreamFiller? = nil
    ) {
        loop.assertIsolated()
        guard !isStarted else { return }
        isStarted = true
        self.status = status
        let framing = isVersion11 ? [("Transfer-Encoding", "chunked")] : []
        connection?.send(head(status, contentType, framing + headers))
        self.filler = filler
        guard let filler, filler.afterMicroseconds > 0, !isHead else { return }
        silence = connection?.silence(of: filler) { [weak self] in self?.fill() }
    }

    /// True when the client may be written to, although there is nothing to say.
    var canFill: Bool { isStarted ? filler != nil && !isEnded : isVersion11 }

    /// Writes what means nothing: the stream's filler, or an interim response before there is one.
    func fill() {
        guard canFill, let connection else { return }
        guard isStarted, let filler else { return connection.send(HTTPText.goOn) }
        if !isHead { connection.fill(framed(filler.bytes.count) { $0.append(contentsOf: filler.bytes) }) }
    }

    /// Nothing will be sent any more.
    func abandon() {
        silence?.cancel()
        silence = nil
    }

    /// Sends one chunk of a stream; waits while more than `pendingWriteBytes` are queued. Throws when the client is
    /// gone or too slow, or the stream was not begun or is over.
    public func write(_ bytes: [UInt8]) async throws(HTTPError) {
        try await write(capacity: bytes.count) { $0.append(contentsOf: bytes) }
    }

    /// Sends as one chunk what `fill` appends to a buffer with room for `capacity` bytes, without copying it again. Waits and
    /// throws as `write` of bytes does.
    public func write(capacity: Int, _ fill: (inout [UInt8]) -> Void) async throws(HTTPError) {
        loop.assertIsolated()
        guard isStarted, !isEnded, let connection else { throw .disconnected }
        if let failure = connection.failure { throw failure }
        let bytes = framed(capacity, fill)
        guard !bytes.isEmpty, !isHead else { return }
        silence?.heard()
        connection.send(bytes)
        if let failure = await connection.waitUntilWritable() { throw failure }
    }

    /// A chunk with its size in front, in the room of eight digits that is filled in when the size is known.
    private func framed(_ capacity: Int, _ fill: (inout [UInt8]) -> Void) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(capacity + 12)
        guard isVersion11 else {
            fill(&bytes)
            return bytes
        }
        bytes.append(contentsOf: "00000000\r\n".utf8)
        fill(&bytes)
        var size = bytes.count - 10
        guard size > 0 else { return [] }
        var place = 8
        while size > 0, place > 0 {
            place -= 1
            let digit = UInt8(size & 15)
            bytes[place] = digit < 10 ? UInt8(ascii: "0") + digit : UInt8(ascii: "a") + digit - 10
            size >>= 4
        }
        bytes.append(contentsOf: [13, 10])
        bytes.removeFirst(place)
        return bytes
    }

    /// Ends a stream; does nothing if none is open.
    public func end() {
        loop.assertIsolated()
        guard isStarted, !isEnded else { return }
        isEnded = true
        abandon()
        if isVersion11, !isHead { connection?.send(Array("0\r\n\r\n".utf8)) }
    }

    private func head(_ status: Int, _ contentType: String, _ headers: [(String, String)]) -> [UInt8] {
        HTTPText.head(
            status: status, date: connection?.dateLine ?? "",
            headers: [("Content-Type", contentType)] + self.headers + headers
                + [keepsAlive ? ("Keep-Alive", "timeout=\(connection?.idleSeconds ?? 0)") : ("Connection", "close")])
    }
}
