import EventLoop

/// One connection of a client: sends a request, reads its answer, and again. Confined to its loop.
final class HTTPClientConnection: Sendable {
    private struct State {
        var parser: ResponseParser?
        var failure: HTTPClientError?
        var isPaused = false
        var isClosed = false
        var deadline: (any LoopTimer)?
        var idleSince: UInt64
        var onClosed: (@Sendable () -> Void)?
    }

    private let loop: any Loop
    private let stream: any ByteStream
    private let limits: HTTPClientLimits
    private let waiters = Waiters()
    private let state: LoopBound<State>

    /// When it was last of use, as the loop counts.
    var idleSince: UInt64 { state.idleSince }

    /// Called once, when the stream is closed.
    var onClosed: (@Sendable () -> Void)? {
        get { state.onClosed }
        set { state.onClosed = newValue }
    }

    init(loop: any Loop, stream: any ByteStream, limits: HTTPClientLimits) {
        self.loop = loop
        self.stream = stream
        self.limits = limits
        state = LoopBound(State(idleSince: loop.now), on: loop)
    }

    func start() {
        stream.start(onBytes: { [self] in received($0) }, onClose: { [self] in closed($0) })
    }

    /// Sends `bytes`, the whole of a request; `answer`, `next` and `finish` are about its answer.
    func send(_ bytes: [UInt8], timeoutMicroseconds: UInt64) {
        state.parser = ResponseParser(headerLimit: limits.headerBytes)
        state.deadline = loop.schedule(afterMicroseconds: timeoutMicroseconds) { [weak self] in self?.fail(.timedOut) }
        stream.write(bytes)
    }

    /// Waits for status and headers.
    func head() async throws(HTTPClientError) -> (status: Int, headers: [(name: String, value: String)]) {
        await wait { state.parser?.hasHead != true && state.failure == nil }
        guard let parser = state.parser, parser.hasHead else { throw state.failure ?? .cancelled }
        return (parser.status, parser.headers)
    }

    /// Waits for more of the body; nil at its end.
    func next() async throws(HTTPClientError) -> [UInt8]? {
        await wait { state.parser.map { $0.body.isEmpty && !$0.isComplete } == true && state.failure == nil }
        guard let parser = state.parser else { throw state.failure ?? .cancelled }
        let bytes = parser.takeBody()
        if state.isPaused, state.failure == nil {
            state.isPaused = false
            stream.resumeReading()
        }
        if !bytes.isEmpty { return bytes }
        guard parser.isComplete else { throw state.failure ?? .cancelled }
        return nil
    }

    /// Ends the exchange; true when the connection can take another.
    func finish() -> Bool {
        let isReusable =
            state.parser.map { $0.isComplete && $0.keepsAlive } == true && state.failure == nil && !state.isClosed
        state.parser = nil
        state.deadline?.cancel()
        state.idleSince = loop.now
        return isReusable
    }

    /// Ends the connection; what waits for it throws `error`.
    func fail(_ error: HTTPClientError) {
        guard state.failure == nil else { return }
        state.failure = error
        state.deadline?.cancel()
        if error == .cancelled || error == .timedOut { stream.abort() } else { stream.close() }
        waiters.wake()
    }

    /// The same, from any thread and as soon as the loop gets to it.
    func failFromAnywhere(_ error: HTTPClientError) {
        loop.execute { [self] in fail(error) }
    }

    private func wait(while condition: () -> Bool) async {
        await withTaskCancellationHandler {
            await waiters.wait(while: condition)
        } onCancel: {
            failFromAnywhere(.cancelled)
        }
    }

    private func received(_ bytes: UnsafeRawBufferPointer) {
        guard state.failure == nil else { return }
        guard let parser = state.parser, !parser.isComplete else {
            return fail(.malformed("bytes came that nobody asked for"))
        }
        if let complaint = parser.parse(bytes) { return fail(.malformed(complaint)) }
        if parser.body.count > limits.bufferedBytes, !state.isPaused {
            state.isPaused = true
            stream.pauseReading()
        }
        waiters.wake()
    }

    private func closed(_ error: LoopError?) {
        state.isClosed = true
        if state.failure == nil, error == nil, let parser = state.parser, parser.hasHead,
            !parser.isComplete
        {
            // a body without a length ends with the connection
            _ = parser.parse(UnsafeRawBufferPointer(start: nil, count: 0))
        }
        if state.parser?.isComplete == true, state.failure == nil {
            waiters.wake()
        } else {
            fail(.disconnected(error?.description ?? "the server closed it"))
        }
        state.deadline?.cancel()
        state.onClosed?()
        state.onClosed = nil
    }
}
