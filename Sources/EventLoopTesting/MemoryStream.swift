import EventLoop

/// One end of a connection on a `MemoryNetwork`.
///
/// What one end writes waits there until the window has room, travels in pieces with a delay each, and waits at the
/// other end while that does not read. Confined to its loop, which the start of reading asserts.
final class MemoryStream: ByteStream, @unchecked Sendable {
    private enum Piece {
        case bytes([UInt8])
        case end
        case reset
    }

    let loop: MemoryLoop
    private weak var other: MemoryStream?
    private var onBytes: (@Sendable (UnsafeRawBufferPointer) -> Void)?
    private var onClose: (@Sendable (LoopError?) -> Void)?
    private var outgoing: [UInt8] = []
    private var outgoingOffset = 0
    private var arrived: [Piece] = []
    private var unread = 0
    private var underWay = 0
    private var lastArrival: UInt64 = 0
    private var isReading = false
    private var isDelivering = false
    private var closesWhenDrained = false
    private var endsWriting = false
    private var hasEnded = false
    private var hasPeerEnded = false
    private var closeTimer: (any LoopTimer)?
    private(set) var takenBytes: UInt64 = 0
    private var isClosed = false
    private var isFinished = false
    private var failure: LoopError?
    private var cut: CutCounter?
    var onDrained: (@Sendable () -> Void)?
    var onEnd: (@Sendable () -> Void)?
    let peer: String
    let port: Int
    let number: Int
    let isClient: Bool

    init(_ network: MemoryNetwork, _ loop: MemoryLoop, peer: String, port: Int, isClient: Bool) {
        self.loop = loop
        self.peer = peer
        self.port = port
        self.isClient = isClient
        number = network.nextStreamNumber()
    }

    func join(_ other: MemoryStream, _ network: MemoryNetwork, cutAfterBytes: Int?) {
        (self.other, other.other) = (other, self)
        let counter = cutAfterBytes.map { CutCounter(left: $0) }
        (cut, other.cut) = (counter, counter)
        network.opened(self)
        network.opened(other)
    }

    func start(
        onBytes: @escaping @Sendable (UnsafeRawBufferPointer) -> Void,
        onClose: @escaping @Sendable (LoopError?) -> Void
    ) {
        loop.assertIsolated()
        self.onBytes = onBytes
        self.onClose = onClose
        if isFinished { return finish() }
        isReading = true
        deliver()
    }

    func pauseReading() { isReading = false }

    func resumeReading() {
        guard !isReading else { return }
        isReading = true
        deliver()
    }

    // MARK: Writing

    var pendingWriteBytes: Int { isClosed ? 0 : outgoing.count - outgoingOffset }

    func write(_ bytes: [UInt8]) {
        guard !isClosed, !closesWhenDrained, !endsWriting else { return }
        outgoing.append(contentsOf: bytes)
        pump()
    }

    func write(_ head: [UInt8], body: UnsafeRawBufferPointer, owner: any AnyObject & Sendable) {
        guard !isClosed, !closesWhenDrained, !endsWriting else { return }
        outgoing.append(contentsOf: head)
        outgoing.append(contentsOf: body)
        pump()
    }

    /// Sends pieces while the window has room.
    private func pump() {
        guard let network = loop.network, let other else { return }
        while !isClosed, pendingWriteBytes > 0, underWay + other.unread < network.behaviour.windowBytes {
            let range = network.behaviour.pieceBytes
            let size = min(network.random(range), pendingWriteBytes)
            if let cut, cut.left < size { return breakConnection() }
            cut?.left -= size
            underWay += size
            send(.bytes(Array(outgoing[outgoingOffset..<outgoingOffset + size])))
            outgoingOffset += size
            takenBytes += UInt64(size)
        }
        if outgoingOffset == outgoing.count || outgoingOffset > 1 << 20 {
            outgoing.removeFirst(outgoingOffset)
            outgoingOffset = 0
        }
    }

    private func breakConnection() {
        let other = other
        fail(LoopError("\(peer): connection reset by peer"))
        if let other { other.fail(LoopError("\(other.peer): connection reset by peer")) }
    }

    /// A piece arrives after a delay, but never before the one sent before it.
    private func send(_ piece: Piece) {
        guard let network = loop.network, let other else { return }
        lastArrival = max(lastArrival, network.now + network.randomDelay())
        network.deliver(other.loop, at: lastArrival) { other.arrive(piece) }
    }

    private func arrive(_ piece: Piece) {
        guard !isClosed else {
            if case .bytes = piece { other?.refused() }
            return
        }
        if case .bytes(let bytes) = piece {
            other?.underWay -= bytes.count
            unread += bytes.count
        }
        arrived.append(piece)
        deliver()
    }

    /// What was sent came to an end that is gone. One that was told so and reads on hears it now, as from the system.
    private func refused() {
        guard !isClosed, hasPeerEnded, let network = loop.network else { return }
        network.deliver(loop, at: network.now + network.randomDelay()) { [self] in
            fail(LoopError("\(peer): connection reset by peer"))
        }
    }

    private func deliver() {
        guard !isDelivering else { return }
        isDelivering = true
        defer { isDelivering = false }
        while isReading, !isClosed, onBytes != nil, !arrived.isEmpty, loop.network?.isFrozen(self) != true {
            switch arrived.removeFirst() {
            case .bytes(let bytes):
                unread -= bytes.count
                bytes.withUnsafeBytes { onBytes?($0) }
                if let other { other.loop.execute { other.windowMoved() } }
            case .end: peerEnded()
            case .reset: fail(LoopError("\(peer): connection reset by peer"))
            }
        }
    }

    private func peerEnded() {
        guard let onEnd, !closesWhenDrained else { return end() }
        hasPeerEnded = true
        self.onEnd = nil
        onEnd()
    }

    func thaw() { deliver() }

    private func windowMoved() {
        guard !isClosed, pendingWriteBytes > 0 else { return }
        pump()
        guard !isClosed, pendingWriteBytes == 0 else { return }
        guard !closesWhenDrained else { return end() }
        if endsWriting { tellEnd() }
        onDrained?()
    }

    // MARK: Closing

    func endWriting() {
        guard !isClosed, !closesWhenDrained, !endsWriting else { return }
        endsWriting = true
        if pendingWriteBytes == 0 { tellEnd() }
    }

    private func tellEnd() {
        guard !hasEnded else { return }
        hasEnded = true
        send(.end)
    }

    func close(withinMicroseconds limit: UInt64) {
        guard !isClosed, !closesWhenDrained else { return }
        closesWhenDrained = true
        guard pendingWriteBytes > 0 else { return end() }
        closeTimer = loop.schedule(afterMicroseconds: limit) { [weak self] in
            guard let self else { return }
            failure = LoopError("\(peer) did not take its last \(pendingWriteBytes) bytes in time")
            abort()
        }
    }

    func abort() {
        guard !isClosed else { return }
        send(.reset)
        shut()
    }

    private func end() {
        guard !isClosed else { return }
        tellEnd()
        shut()
    }

    func fail(_ error: LoopError) {
        guard !isClosed else { return }
        failure = error
        shut()
    }

    private func shut() {
        isClosed = true
        closeTimer?.cancel()
        closeTimer = nil
        (outgoing, outgoingOffset, arrived, unread) = ([], 0, [], 0)
        loop.network?.closed(self)
        loop.execute { [self] in
            isFinished = true
            finish()
        }
    }

    private func finish() {
        guard let onClose else { return }
        forget()
        onClose(failure)
    }

    /// Lets go of who reads here.
    func forget() { (onClose, onBytes, onDrained, onEnd) = (nil, nil, nil, nil) }
}

/// Bytes a connection may carry before it breaks.
private final class CutCounter {
    var left: Int
    init(left: Int) { self.left = left }
}
