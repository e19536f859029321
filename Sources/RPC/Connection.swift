import EventLoop
import WireProtocol

/// A whole message: the first frame's header, its metadata and the joined body.
struct Message: Sendable {
    let header: FrameHeader
    let metadata: [UInt8]
    let body: AlignedBuffer?
}

/// One connection after `start`: framing, handshake, segmentation and heartbeats. Calls live in client and server.
final class Connection: @unchecked Sendable {
    private struct Outgoing {
        var header: FrameHeader
        var metadata: [UInt8]
        let body: AlignedBuffer
        var offset = 0
    }

    private struct Incoming {
        let header: FrameHeader
        let metadata: [UInt8]
        let body: AlignedBuffer
        var filled: Int
    }

    private let loop: any Loop
    private let stream: any ByteStream
    private let limits: RPCLimits
    private let isClient: Bool
    private var handshake: Handshake
    private var decoder: FrameDecoder
    private var outgoing: [Outgoing] = []
    private var incoming: [UInt64: Incoming] = [:]
    private var lastReceived: UInt64
    private var failure: RPCError?
    private(set) var isReady = false
    private var isClosed = false
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
        decoder = FrameDecoder(limits: limits.frames)
        lastReceived = loop.now
    }

    /// The peer's hello; nil before it came.
    var peer: Hello? { handshake.peer }

    func start() {
        stream.onDrained = { [weak self] in self?.pump() }
        stream.start(
            onBytes: { [weak self] bytes in self?.received(bytes) },
            onClose: { [self] error in didClose(error) })
        if isClient { send(.hello, metadata: handshake.clientHello().encoded()) }
        timer = loop.schedule(afterMicroseconds: limits.handshakeMicroseconds) { [weak self] in self?.tick() }
    }

    func close(_ reason: RPCError) {
        guard !isClosed else { return }
        if failure == nil { failure = reason }
        isClosed = true
        timer?.cancel()
        stream.close()
    }

    /// Tells the peer why, then closes.
    func refuse(_ failure: Failure) {
        send(.error, metadata: failure.encoded())
        close(RPCError(failure.code, failure.message))
    }

    private func didClose(_ error: LoopError?) {
        isClosed = true
        timer?.cancel()
        let reason = failure ?? RPCError(.unavailable, error?.description ?? "\(stream.peer) closed the connection")
        let onClose = self.onClose
        (self.onClose, onMessage, onReady) = (nil, nil, nil)
        outgoing.removeAll()
        incoming.removeAll()
        onClose?(reason)
    }

    // MARK: Sending

    func send(
        _ kind: FrameKind, requestID: UInt64 = 0, method: Method = Method(rawValue: 0), deadline: UInt64 = 0,
        metadata: [UInt8] = [], body: AlignedBuffer? = nil
    ) {
        guard !isClosed else { return }
        var header = FrameHeader(kind: kind, requestID: requestID)
        header.method = method
        header.deadlineMicroseconds = deadline
        header.messageBodyLength = UInt32(body?.count ?? 0)
        // A frame must not overtake the segments of an earlier message of its call.
        let follows = requestID != 0 && outgoing.contains { $0.header.requestID == requestID }
        guard follows || body?.count ?? 0 > limits.frames.segment else {
            write(header, metadata, body?.bytes, owner: body)
            return
        }
        outgoing.append(Outgoing(header: header, metadata: metadata, body: body ?? AlignedBuffer(count: 0)))
        pump()
    }

    /// Sends segments of large bodies in turn, as long as the system takes them.
    private func pump() {
        while !outgoing.isEmpty, stream.pendingWriteBytes < 1 << 20, !isClosed {
            var next = outgoing.removeFirst()
            let count = min(limits.frames.segment, next.body.count - next.offset)
            let isLast = next.offset + count == next.body.count
            next.header.flags = isLast ? [] : .more
            let bytes = UnsafeRawBufferPointer(rebasing: next.body.bytes[next.offset..<next.offset + count])
            write(next.header, next.metadata, bytes, owner: next.body)
            next.metadata = []
            next.offset += count
            guard !isLast else { continue }
            let call = next.header.requestID
            outgoing.insert(next, at: outgoing.firstIndex { $0.header.requestID == call } ?? outgoing.endIndex)
        }
    }

    private func write(
        _ header: FrameHeader, _ metadata: [UInt8], _ body: UnsafeRawBufferPointer?, owner: AlignedBuffer?
    ) {
        var header = header
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
        if stream.pendingWriteBytes > limits.pendingWriteBytes {
            close(RPCError(.limitExceeded, "\(stream.peer) does not read: \(stream.pendingWriteBytes) bytes wait"))
        }
    }

    // MARK: Receiving

    private func received(_ bytes: UnsafeRawBufferPointer) {
        lastReceived = loop.now
        var rest = bytes
        do throws(WireError) {
            while !isClosed, let frame = try decoder.next(&rest) { try received(frame) }
        } catch {
            refuse(Failure(code: .invalidArgument, message: error.description))
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
            let failure = try Failure(decoding: frame.metadata)
            close(RPCError(failure.code, failure.message))
        default: try join(frame)
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
            case .ready:
                isReady = true
                timer?.cancel()
                scheduleTick()
                onReady?()
            }
        }
    }

    /// Joins the segments of a message; a message of one frame is passed on as it is.
    private func join(_ frame: Frame) throws(WireError) {
        let header = frame.header
        if var partial = incoming.removeValue(forKey: header.requestID) {
            guard partial.header.kind == header.kind, frame.metadata.isEmpty, let body = frame.body,
                body.count <= partial.body.count - partial.filled
            else { throw WireError("segment does not continue message \(header.requestID)") }
            (partial.body.pointer + partial.filled).copyMemory(from: body.pointer, byteCount: body.count)
            partial.filled += body.count
            guard !header.flags.contains(.more) else {
                incoming[header.requestID] = partial
                return
            }
            guard partial.filled == partial.body.count else {
                throw WireError(
                    "message \(header.requestID) ends after \(partial.filled) of \(partial.body.count) bytes")
            }
            onMessage?(Message(header: partial.header, metadata: partial.metadata, body: partial.body))
            return
        }
        guard header.flags.contains(.more) else {
            guard header.bodyLength == header.messageBodyLength else {
                throw WireError("message body length \(header.messageBodyLength) is not that of its only segment")
            }
            onMessage?(Message(header: header, metadata: frame.metadata, body: frame.body))
            return
        }
        guard incoming.count < 64, let body = frame.body else {
            throw WireError("more than 64 messages are segmented at once, or a segment is empty")
        }
        let joined = AlignedBuffer(count: Int(header.messageBodyLength))
        joined.pointer.copyMemory(from: body.pointer, byteCount: body.count)
        incoming[header.requestID] = Incoming(
            header: header, metadata: frame.metadata, body: joined, filled: body.count)
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
        let silence = loop.now - lastReceived
        if silence > limits.silenceMicroseconds {
            close(RPCError(.unavailable, "\(stream.peer) gave no sign of life for \(silence / 1000) ms"))
            return
        }
        if silence > limits.heartbeatMicroseconds / 2 { send(.ping) }
        scheduleTick()
    }
}
