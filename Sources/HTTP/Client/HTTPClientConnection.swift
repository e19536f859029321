import EventLoop

/// One connection of a client: sends a request, reads its answer, and again. Confined to its loop.
final class HTTPClientConnection: @unchecked Sendable {
    private let loop: any Loop
    private let stream: any ByteStream
    private let limits: HTTPClientLimits
    private var parser: ResponseParser?
    private var failure: HTTPClientError?
    private var isPaused = false
    private var isClosed = false
    private var deadline: (any LoopTimer)?
    private let waiters = Waiters()
    /// When it was last of use, as the loop counts.
    private(set) var idleSince: UInt64
    /// Called once, when the stream is closed.
    var onClosed: (@Sendable () -> Void)?

    init(loop: any Loop, stream: any ByteStream, limits: HTTPClientLimits) {
        self.loop = loop
        self.stream = stream
        self.limits = limits
        idleSince = loop.now
    }

    func start() {
        stream.start(onBytes: { [self] in received($0) }, onClose: { [self] in closed($0) })
    }

    /// Sends `bytes`, the whole of a request; `answer`, `next` and `finish` are about its answer.
    func send(_ bytes: [UInt8], timeoutMicroseconds: UInt64) {
        parser = ResponseParser(headerLimit: limits.headerBytes)
        deadline = loop.schedule(afterMicroseconds: timeoutMicroseconds) { [weak self] in self?.fail(.timedOut) }
        stream.write(bytes)
    }

    /// Waits for status and headers.
    func head() async throws(HTTPClientError) -> (status: Int, headers: [(name: String, value: String)]) {
        await wait { parser?.hasHead != true && failure == nil }
        guard let parser, parser.hasHead else { throw failure ?? .cancelled }
        return (parser.status, parser.headers)
    }

    /// Waits for more of the body; nil at its end.
    func next() async throws(HTTPClientError) -> [UInt8]? {
        await wait { parser.map { $0.body.isEmpty && !$0.isComplete } == true && failure == nil }
        guard let parser else { throw failure ?? .cancelled }
        let bytes = parser.takeBody()
        if isPaused, failure == nil {
            isPaused = false
            stream.resumeReading()
        }
        if !bytes.isEmpty { return bytes }
        guard parser.isComplete else { throw failure ?? .cancelled }
        return nil
    }

    /// Ends the exchange; true when the connection can take another.
    func finish() -> Bool {
        let isReusable = parser.map { $0.isComplete && $0.keepsAlive } == true && failure == nil && !isClosed
        parser = nil
        deadline?.cancel()
        idleSince = loop.now
        return isReusable
    }

    /// Ends the connection; what waits for it throws `error`.
    func fail(_ error: HTTPClientError) {
        guard failure == nil else { return }
        failure = error
        deadline?.cancel()
        if error == .cancelled || error == .timedOut { stream.abort() } else { stream.close() }
        waiters.wake()
    }

    private func wait(while condition: () -> Bool) async {
        await withTaskCancellationHandler {
            await waiters.wait(while: condition)
        } onCancel: {
            loop.execute { [self] in fail(.cancelled) }
        }
    }

    private func received(_ bytes: UnsafeRawBufferPointer) {
        guard failure == nil else { return }
        guard let parser, !parser.isComplete else { return fail(.malformed("bytes came that nobody asked for")) }
        if let complaint = parser.parse(bytes) { return fail(.malformed(complaint)) }
        if parser.body.count > limits.bufferedBytes, !isPaused {
            isPaused = true
            stream.pauseReading()
        }
        waiters.wake()
    }

    private func closed(_ error: LoopError?) {
        isClosed = true
        if failure == nil, error == nil, let parser, parser.hasHead, !parser.isComplete {
            // a body without a length ends with the connection
            _ = parser.parse(UnsafeRawBufferPointer(start: nil, count: 0))
        }
        if parser?.isComplete == true, failure == nil {
            waiters.wake()
        } else {
            fail(.disconnected(error?.description ?? "the server closed it"))
        }
        deadline?.cancel()
        onClosed?()
        onClosed = nil
    }
}
