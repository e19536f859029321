import EventLoop
import Glibc

/// One connection: reads a request, runs its handler, reads the next. Confined to its loop, which everything that
/// sends, receives or ends asserts.
final class HTTPConnection: @unchecked Sendable {
    private enum Phase { case idle, reading, handling, draining, lingering, closed }

    private static let lingerMicroseconds: UInt64 = 500_000
    private static let bufferedBytes = 64 << 10
    private static let discardedBytesLimit = 16 << 20

    private let stream: any ByteStream
    private let loop: any Loop
    private let limits: HTTPLimits
    private let handler: any HTTPHandler
    private let parser: RequestParser
    private let load: HTTPLoad
    private var phase = Phase.idle
    private var buffer: [UInt8] = []
    private var isProcessing = false
    private var isPaused = false
    private var discardedBytes = 0
    private var isDraining = false
    /// The client has ended its side.
    private var hasEnded = false
    private var probes: DepartureProbes?
    private var timer: (any LoopTimer)?
    private var task: Task<Void, Never>?
    private var response: HTTPResponse?
    private let writers = Waiters()
    private var slowTimer: (any LoopTimer)?
    private var stallTimer: (any LoopTimer)?
    private(set) var failure: HTTPError?
    /// Called once, when the stream is closed.
    var onClosed: (@Sendable () -> Void)?

    init(stream: any ByteStream, loop: any Loop, limits: HTTPLimits, handler: any HTTPHandler, load: HTTPLoad) {
        self.stream = stream
        self.loop = loop
        self.limits = limits
        self.handler = handler
        self.load = load
        parser = RequestParser(limits: limits, load: load)
    }

    func start() {
        stream.onDrained = { [weak self] in self?.drained() }
        stream.onEnd = { [weak self] in self?.ended() }
        arm(limits.idleMicroseconds)
        stream.start(onBytes: { [self] in received($0) }, onClose: { [self] _ in closed() })
    }

    /// Closes once the request at hand is answered; at once when there is none.
    func drain() {
        isDraining = true
        if phase == .idle { close() }
    }

    func close() {
        guard phase != .closed else { return }
        abandon(.disconnected)
        stream.close()
    }

    func send(_ bytes: [UInt8]) {
        loop.assertIsolated()
        guard failure == nil else { return }
        stream.write(bytes)
        if stallTimer == nil, stream.pendingWriteBytes > 0 { watchStall() }
    }

    /// The `Date` line of a response that is sent now.
    var dateLine: String { load.date.line(at: time(nil)) }

    /// A client that takes nothing while bytes wait for it is reset, however few they are. The clock runs on when they have
    /// been taken: a stream would start one for each of its tokens.
    private func watchStall() {
        let taken = stream.takenBytes
        stallTimer = loop.schedule(afterMicroseconds: limits.slowClientMicroseconds) { [weak self] in
            guard let self else { return }
            stallTimer = nil
            guard phase != .closed, stream.pendingWriteBytes > 0 else { return }
            guard stream.takenBytes == taken else { return watchStall() }
            reset()
        }
    }

    private func reset() {
        abandon(.slowClient)
        stream.abort()
    }

    /// Waits while too much is queued; returns why the client cannot be written to any more.
    func waitUntilWritable() async -> HTTPError? {
        if failure == nil, stream.pendingWriteBytes > limits.pendingWriteBytes {
            watchSlowClient()
            await writers.wait { failure == nil && stream.pendingWriteBytes > 0 }
        }
        return failure
    }

    private func watchSlowClient() {
        guard slowTimer == nil else { return }
        slowTimer = loop.schedule(afterMicroseconds: limits.slowClientMicroseconds) { [weak self] in
            self?.reset()
        }
    }

    // MARK: Silence

    /// Whole seconds for which the connection is kept between requests.
    var idleSeconds: UInt64 { limits.idleMicroseconds / 1_000_000 }

    /// The timer of a stream's silence.
    func silence(of filler: StreamFiller, _ fill: @escaping @Sendable () -> Void) -> StreamSilence {
        StreamSilence(limit: filler.afterMicroseconds, loop: loop, fill)
    }

    /// Sends what means nothing, unless something that does waits for the client.
    func fill(_ bytes: [UInt8]) {
        if stream.pendingWriteBytes == 0 { send(bytes) }
    }

    /// The client has sent all it will. What it asked for is answered; and as it may be gone instead, it is written to now
    /// and then while the answer is on its way. Where that is not possible, it is taken for gone.
    private func ended() {
        hasEnded = true
        if phase == .handling { doubt() } else { closeIfAnswered() }
    }

    private func closeIfAnswered() {
        switch phase {
        case .idle, .lingering: close()
        case .reading: fail(400, "The request ends before it is complete.")
        case .handling, .draining, .closed: break
        }
    }

    private func doubt() {
        guard let response, response.canFill || !response.isStarted else { return close() }
        var probes = DepartureProbes(hasBegun: response.isStarted)
        guard let wait = probes.next() else { return }
        self.probes = probes
        timer?.cancel()
        timer = loop.schedule(afterMicroseconds: wait) { [weak self] in self?.probe() }
    }

    private func probe() {
        guard phase == .handling, let response else { return }
        response.fill()
        guard phase == .handling, let wait = probes?.next() else { return }
        timer = loop.schedule(afterMicroseconds: wait) { [weak self] in self?.probe() }
    }

    private func drained() {
        slowTimer?.cancel()
        slowTimer = nil
        writers.wake()
        if phase == .draining { next() }
    }

    private func received(_ bytes: UnsafeRawBufferPointer) {
        loop.assertIsolated()
        guard phase != .closed else { return }
        guard phase != .lingering else { return discard(bytes.count) }
        buffer.append(contentsOf: bytes)
        process()
        if phase == .handling || phase == .draining, !isPaused, buffer.count > Self.bufferedBytes {
            isPaused = true
            stream.pauseReading()
        }
    }

    /// Parses and handles as long as there is something to; a handler may finish within, so it must not recurse.
    private func process() {
        guard !isProcessing else { return }
        isProcessing = true
        while (phase == .idle || phase == .reading) && !buffer.isEmpty { parse() }
        isProcessing = false
        if hasEnded { closeIfAnswered() }
    }

    private func parse() {
        if phase == .idle {
            phase = .reading
            arm(limits.headerMicroseconds)
        }
        let hadHeaders = parser.hasHeaders
        let used = buffer.withUnsafeBytes { parser.parse($0) }
        buffer.removeFirst(min(used, buffer.count))
        if let refusal = parser.refusal { return refuse(refusal) }
        if parser.isComplete { return handle() }
        buffer = []
        if !hadHeaders, parser.hasHeaders { arm(limits.bodyMicroseconds) }
        if parser.expectsContinue {
            parser.expectsContinue = false
            send(HTTPText.goOn)
        }
    }

    private func handle() {
        timer?.cancel()
        phase = .handling
        let keepsAlive = parser.keepsAlive && !isDraining
        let version11 = parser.isVersion11
        let request = parser.takeRequest()
        let response = HTTPResponse(
            connection: self, loop: loop, isHead: request.method == "HEAD", isVersion11: version11,
            keepsAlive: keepsAlive)
        self.response = response
        let reserved = parser.takeReserved()
        load.handlers += 1
        let task = Task.immediate(executorPreference: loop) { [self, handler] in
            await handler.handle(request, response)
            load.handlers -= 1
            load.bodyBytes -= reserved
            handled(response)
        }
        guard self.response === response else { return }
        self.task = task
        if hasEnded { doubt() }
    }

    private func handled(_ response: HTTPResponse) {
        guard self.response === response else { return }
        if !response.isStarted {
            response.sendError(status: 500, type: "server_error", message: "The request was not answered.")
        }
        response.abandon()
        self.response = nil
        task = nil
        guard phase == .handling else { return }
        timer?.cancel()
        guard response.isEnded, response.keepsAlive, !isDraining else { return linger() }
        phase = .draining
        if stream.pendingWriteBytes > limits.pendingWriteBytes { watchSlowClient() } else { next() }
    }

    private func next() {
        guard !isDraining else { return linger() }
        phase = .idle
        arm(limits.idleMicroseconds)
        process()
        if isPaused, phase == .idle || phase == .reading {
            isPaused = false
            stream.resumeReading()
        }
    }

    private func refuse(_ refusal: RequestParser.Refusal) {
        switch refusal {
        case .malformed: fail(400, "The request is not valid HTTP/1.1.")
        case .notOneHost: fail(400, "A request must have one Host header, and no more.")
        case .headersTooLarge: fail(431, "The headers exceed \(limits.headerBytes) bytes.")
        case .bodyTooLarge: fail(413, "The body exceeds \(limits.bodyBytes) bytes.")
        case .busy: fail(503, "The bodies of all requests at hand exceed \(limits.totalBodyBytes) bytes.")
        }
    }

    /// Answers outside of a handler and closes.
    func fail(_ status: Int, _ message: String) {
        let response = HTTPResponse(connection: self, loop: loop, isHead: false, isVersion11: true, keepsAlive: false)
        let type = status >= 500 ? "server_error" : "invalid_request_error"
        response.sendError(
            status: status, type: type, message: message, headers: status == 503 ? [("Retry-After", "1")] : [])
        linger()
    }

    /// Tells the client that the response is over, and lets it read that before the connection goes: closing over unread
    /// input would reset it.
    private func linger() {
        guard !hasEnded else { return close() }
        phase = .lingering
        buffer = []
        stream.endWriting()
        if isPaused {
            isPaused = false
            stream.resumeReading()
        }
        timer?.cancel()
        timer = loop.schedule(afterMicroseconds: Self.lingerMicroseconds) { [weak self] in self?.close() }
    }

    /// What still comes is dropped, and after a while not even read: a client that sends without end must not cost more than
    /// one that reads its refusal.
    private func discard(_ byteCount: Int) {
        discardedBytes += byteCount
        guard discardedBytes > Self.discardedBytesLimit, !isPaused else { return }
        isPaused = true
        stream.pauseReading()
    }

    private func arm(_ microseconds: UInt64) {
        timer?.cancel()
        timer = loop.schedule(afterMicroseconds: microseconds) { [weak self] in self?.expired() }
    }

    private func expired() {
        switch phase {
        case .idle: close()
        case .reading: fail(408, "The request did not arrive in time.")
        default: break
        }
    }

    private func abandon(_ error: HTTPError) {
        loop.assertIsolated()
        phase = .closed
        failure = failure ?? error
        timer?.cancel()
        slowTimer?.cancel()
        stallTimer?.cancel()
        response?.abandon()
        task?.cancel()
        task = nil
        writers.wake()
    }

    private func closed() {
        abandon(.disconnected)
        (stream.onDrained, stream.onEnd) = (nil, nil)
        onClosed?()
        onClosed = nil
    }
}
