import EventLoop
import Observability
import WireProtocol

/// One connection after `start`: framing, handshake, segmentation and heartbeats. Calls live in client and server.
/// Confined to its loop, which everything that sends, receives or ends asserts.
final class Connection: @unchecked Sendable {
    /// Queued bytes beyond which a server reads no further from a peer that does not read.
    private static let pauseBytes = 4 << 20
    /// Queued bytes beyond which segments wait for their turn.
    private static let queueBytes = 1 << 20

    private let loop: any Loop
    private let stream: any ByteStream
    private let limits: RPCLimits
    private let isClient: Bool
    private var handshake: Handshake
    private var decoder: FrameDecoder
    private var outgoing: OutgoingMessages
    private var incoming: IncomingMessages
    /// When the peer gave a sign of life last.
    private(set) var lastReceived: UInt64
    private var lastTaken: (bytes: UInt64, time: UInt64) = (0, 0)
    private var failure: RPCError?
    /// That of a peer of another version once it is known: what it is told must be in frames that it reads.
    private var writtenVersion = FrameHeader.version
    private var isOpen = false
    private var isClosed = false
    private var isPaused = false
    private var timer: (any LoopTimer)?

    /// Called when the handshake is done.
    var onReady: (() -> Void)?
    /// Called for every message but those of the connection itself.
    var onMessage: ((Message) -> Void)?
    /// Called once, at the end.
    var onClose: ((RPCError) -> Void)?

    init(
        loop: any Loop, stream: any ByteStream, handshake: Handshake, isClient: Bool, limits: RPCLimits
    ) {
        self.loop = loop
        self.stream = stream
        self.handshake = handshake
        self.isClient = isClient
        self.limits = limits
        decoder = FrameDecoder(limits: .handshake)
        outgoing = OutgoingMessages(segment: limits.frames.segment, maximumBody: limits.frames.body)
        incoming = IncomingMessages(maximumBody: limits.frames.body)
        lastReceived = loop.now
        lastTaken.time = loop.now
    }

    /// True from the end of the handshake until the connection is closed.
    var isReady: Bool { isOpen && !isClosed }

    /// Bytes that wait for the peer to take them.
    var waitingBytes: Int { outgoing.byteCount + stream.pendingWriteBytes }

    /// The peer's hello; nil before it came.
    var peer: Hello? { handshake.peer }

    func start() {
        stream.onDrained = { [weak self] in self?.drained() }
        stream.start(
            onBytes: { [weak self] bytes in self?.received(bytes) },
            onClose: { [self] error in didClose(error) })
        if isClient { send(.hello, metadata: handshake.clientHello().encoded()) }
        timer = loop.schedule(afterMicroseconds: limits.handshakeMicroseconds) { [weak self] in self?.tick() }
    }

    func close(_ reason: RPCError) {
        guard end(reason) else { return }
        stream.close()
    }

    /// Resets the connection: for a peer that takes nothing, so that an orderly close would wait for it.
    func cutOff(_ reason: RPCError) {
        guard end(reason) else { return }
        stream.abort()
    }

    private func end(_ reason: RPCError) -> Bool {
        loop.assertIsolated()
        guard !isClosed else { return false }
        failure = failure ?? reason
        isClosed = true
        timer?.cancel()
        outgoing.removeAll()
        incoming.removeAll()
        return true
    }

    /// Tells the peer why, then closes.
    func refuse(_ failure: Failure) {
        send(.error, metadata: failure.encoded())
        close(RPCError(failure))
    }

    private func didClose(_ error: LoopError?) {
        isClosed = true
        timer?.cancel()
        let reason = failure ?? RPCError(.unavailable, error?.description ?? "\(stream.peer) closed the connection")
        let onClose = self.onClose
        (self.onClose, onMessage, onReady) = (nil, nil, nil)
        stream.onDrained = nil
        outgoing.removeAll()
        incoming.removeAll()
        onClose?(reason)
    }

    // MARK: Sending

    /// Why the peer would refuse a message of these parts, and with it the connection; nil when it would not.
    func refusal(metadata: [UInt8], body: AlignedBuffer?) -> RPCError? {
        guard metadata.count <= limits.frames.metadata else {
            return RPCError(
                .limitExceeded,
                "the message has \(metadata.count) bytes of metadata, the limit is \(limits.frames.metadata)")
        }
        guard body?.count ?? 0 <= outgoing.maximumBody else {
            return RPCError(
                .limitExceeded,
                "the message has a body of \(body?.count ?? 0) bytes, \(stream.peer) takes \(outgoing.maximumBody)")
        }
        return nil
    }

    func send(
        _ kind: FrameKind, requestID: UInt64 = 0, method: Method = Method(rawValue: 0), deadline: UInt64 = 0,
        trace: TraceContext = .none, metadata: [UInt8] = [], body: AlignedBuffer? = nil
    ) {
        loop.assertIsolated()
        guard !isClosed else { return }
        // One message may be larger than what may wait, so it does not count against the next.
        let limit = limits.pendingWriteBytes
        guard waitingBytes <= limit || waitingBytes - outgoing.largestRest <= limit else {
            return cutOff(RPCError(.limitExceeded, "\(stream.peer) does not read: \(waitingBytes) bytes wait"))
        }
        var header = FrameHeader(kind: kind, requestID: requestID)
        header.method = method
        header.deadlineMicroseconds = deadline
        (header.traceHigh, header.traceLow) = (trace.high, trace.low)
        if trace.isSampled { header.flags.insert(.sampled) }
        header.messageBodyLength = UInt32(body?.count ?? 0)
        // A frame must not overtake the segments of an earlier message of its call.
        let follows = requestID != 0 && outgoing.contains(call: requestID)
        if follows || body?.count ?? 0 > limits.frames.segment {
            outgoing.append(header, metadata: metadata, body: body)
            pump()
        } else {
            write(header, metadata, body?.bytes, owner: body)
        }
        pauseIfNotRead()
    }

    /// Sends segments of large bodies in turn, as long as the system takes them.
    private func pump() {
        while !isClosed, stream.pendingWriteBytes < Self.queueBytes, let next = outgoing.next() {
            write(
                next.header, next.metadata, UnsafeRawBufferPointer(rebasing: next.body.bytes[next.range]),
                owner: next.body)
        }
    }

    private func drained() {
        if isPaused {
            isPaused = false
            lastReceived = loop.now
            stream.resumeReading()
        }
        pump()
    }

    /// A peer that does not read is not read from either. On the server's side only: were clients to do so too, both
    /// could wait for each other.
    private func pauseIfNotRead() {
        guard !isClosed, !isClient, !isPaused, stream.pendingWriteBytes > Self.pauseBytes else { return }
        isPaused = true
        stream.pauseReading()
    }

    private func write(
        _ header: FrameHeader, _ metadata: [UInt8], _ body: UnsafeRawBufferPointer?, owner: AlignedBuffer?
    ) {
        var header = header
        header.version = writtenVersion
        header.metadataLength = UInt32(metadata.count)
        header.bodyLength = UInt32(body?.count ?? 0)
        header.flags.insert(.payloadChecksum)
        let checksum = metadata.withUnsafeBytes { checksum32($0) }
        header.payloadChecksum = body.map { checksum32($0, continuing: checksum) } ?? checksum
        let coalesces = (body?.count ?? 0) <= 16_384
        var bytes: [UInt8] = []
        bytes.reserveCapacity(FrameHeader.byteCount + metadata.count + (coalesces ? body?.count ?? 0 : 0))
        header.encode(into: &bytes)
        bytes.append(contentsOf: metadata)
        if let body, let owner, !coalesces {
            stream.write(bytes, body: body, owner: owner)
        } else {
            if let body { bytes.append(contentsOf: body) }
            stream.write(bytes)
        }
    }

    // MARK: Receiving

    private func received(_ bytes: UnsafeRawBufferPointer) {
        loop.assertIsolated()
        lastReceived = loop.now
        var rest = bytes
        do throws(WireError) {
            while !isClosed, let frame = try decoder.next(&rest) { try received(frame) }
        } catch {
            if let version = error.versionOfPeer { writtenVersion = version }
            let code: ErrorCode = error.versionOfPeer == nil ? .invalidArgument : .mismatch
            refuse(Failure(code: code, message: error.description))
        }
    }

    private func received(_ frame: Frame) throws(WireError) {
        guard isReady || [.hello, .authenticate, .error].contains(frame.header.kind) else {
            throw WireError("\(frame.header.kind) frame before the handshake is done")
        }
        switch frame.header.kind {
        case .hello: perform(try receivedHello(Hello(decoding: frame.metadata)))
        case .authenticate:
            guard !isClient, !isReady else { throw WireError("authenticate frame out of turn") }
            perform([handshake.serverReceived(try Authenticate(decoding: frame.metadata))])
        case .ping: send(.pong)
        case .pong: break
        case .error where frame.header.requestID == 0:
            close(RPCError(try Failure(decoding: frame.metadata)))
        default:
            if let message = try incoming.join(frame) { onMessage?(message) }
        }
    }

    private func receivedHello(_ hello: Hello) throws(WireError) -> [Handshake.Action] {
        guard handshake.peer == nil else { throw WireError("hello frame out of turn") }
        return isClient ? handshake.clientReceived(hello) : handshake.serverReceived(hello)
    }

    private func perform(_ actions: [Handshake.Action]) {
        for action in actions {
            switch action {
            case .sendHello(let hello): send(.hello, metadata: hello.encoded())
            case .sendAuthenticate(let answer): send(.authenticate, metadata: answer.encoded())
            case .refuse(let failure): refuse(failure)
            case .ready: becomeReady()
            }
        }
    }

    private func becomeReady() {
        isOpen = true
        decoder.limits = limits.frames
        outgoing.maximumBody = min(limits.frames.body, Int(peer?.maximumBody ?? 0))
        timer?.cancel()
        scheduleTick()
        onReady?()
    }

    // MARK: Time

    private func scheduleTick() {
        timer = loop.schedule(afterMicroseconds: limits.heartbeatMicroseconds) { [weak self] in self?.tick() }
    }

    private func tick() {
        guard !isClosed else { return }
        guard isReady else {
            refuse(Failure(code: .deadlineExceeded, message: "the handshake took too long"))
            return
        }
        let now = loop.now
        let taken = stream.takenBytes
        if stream.pendingWriteBytes == 0 || taken != lastTaken.bytes { lastTaken = (taken, now) }
        if now - lastTaken.time > limits.stallMicroseconds {
            let waiting = waitingBytes
            return cutOff(
                RPCError(
                    .limitExceeded,
                    "\(stream.peer) has not read for \((now - lastTaken.time) / 1000) ms, \(waiting) bytes wait"))
        }
        let silence = isPaused ? 0 : now - lastReceived
        if silence > limits.silenceMicroseconds {
            return cutOff(
                RPCError(.unavailable, "\(stream.peer) gave no sign of life for \(silence / 1000) ms"))
        }
        if silence > limits.heartbeatMicroseconds / 2 { send(.ping) }
        scheduleTick()
    }
}
