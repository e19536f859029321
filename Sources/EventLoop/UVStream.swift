import CLibuv
import Glibc

/// A TCP connection on a `UVLoop`.
///
/// Writes go out at once when nothing is queued before them; the rest is left to libuv, which holds on to the buffers
/// until they are taken. The handle's memory is freed in its close callback and nowhere else.
/// Confined to its loop, which its start and its end assert.
final class UVStream: ByteStream, Closable, @unchecked Sendable {
    private let loop: UVLoop
    private(set) var handle: UnsafeMutablePointer<uv_tcp_t>?
    private var onBytes: (@Sendable (UnsafeRawBufferPointer) -> Void)?
    private var onClose: (@Sendable (LoopError?) -> Void)?
    private var closesWhenDrained = false
    private var endsWriting = false
    private var hasPeerEnded = false
    private var closeTimer: (any LoopTimer)?
    private var failure: LoopError?
    private var openRequests = 0
    private var acceptedBytes: UInt64 = 0
    var onDrained: (@Sendable () -> Void)?
    var onEnd: (@Sendable () -> Void)?
    private(set) var peer = "unknown"

    init(_ loop: UVLoop) {
        self.loop = loop
        let handle = UnsafeMutablePointer<uv_tcp_t>.allocate(capacity: 1)
        self.handle = handle
        uv_tcp_init(loop.handle, handle)
        handle.pointee.data = Unmanaged.passRetained(self).toOpaque()
    }

    /// The handle as the stream functions want it.
    func withStream<Result>(_ body: (UnsafeMutablePointer<uv_stream_t>) -> Result) -> Result? {
        handle.map { $0.withMemoryRebound(to: uv_stream_t.self, capacity: 1, body) }
    }

    func connected() {
        guard let handle else { return }
        uv_tcp_nodelay(handle, 1)
        var address = sockaddr_storage()
        var length = Int32(MemoryLayout<sockaddr_storage>.size)
        withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { socket in
                guard uv_tcp_getpeername(handle, socket, &length) == 0 else { return }
                peer = describeAddress(socket)
            }
        }
    }

    func start(
        onBytes: @escaping @Sendable (UnsafeRawBufferPointer) -> Void,
        onClose: @escaping @Sendable (LoopError?) -> Void
    ) {
        loop.assertIsolated()
        self.onBytes = onBytes
        self.onClose = onClose
        if handle == nil {
            finish()
        } else {
            resumeReading()
        }
    }

    func resumeReading() {
        guard !hasPeerEnded else { return }
        _ = withStream { stream in
            uv_read_start(
                stream,
                { handle, _, buffer in
                    guard let data = handle?.pointee.data, let buffer else { return }
                    let stream = Unmanaged<UVStream>.fromOpaque(data).takeUnretainedValue()
                    buffer.pointee = uvBuffer(UnsafeRawBufferPointer(stream.loop.readBuffer))
                },
                { handle, count, _ in
                    guard let data = handle?.pointee.data else { return }
                    let stream = Unmanaged<UVStream>.fromOpaque(data).takeUnretainedValue()
                    stream.loop.callback { stream.didRead(count) }
                })
        }
    }

    func pauseReading() { _ = withStream { uv_read_stop($0) } }

    private func didRead(_ count: Int) {
        if count > 0 {
            onBytes?(UnsafeRawBufferPointer(rebasing: loop.readBuffer[..<count]))
        } else if count == Int(UV_EOF.rawValue), let onEnd, !closesWhenDrained {
            hasPeerEnded = true
            self.onEnd = nil
            onEnd()
        } else if count < 0 {
            if count != Int(UV_EOF.rawValue) { failure = LoopError("\(peer): \(describeStatus(Int32(count)))") }
            closeNow()
        }
    }

    // MARK: Writing

    var pendingWriteBytes: Int { withStream { Int(uv_stream_get_write_queue_size($0)) } ?? 0 }

    var takenBytes: UInt64 { acceptedBytes - UInt64(pendingWriteBytes) }

    func write(_ bytes: [UInt8]) {
        bytes.withUnsafeBytes { raw in
            let sent = trySend(raw, UnsafeRawBufferPointer(start: nil, count: 0))
            guard sent >= 0, sent < raw.count else { return }
            queue(UnsafeRawBufferPointer(rebasing: raw[sent...]))
        }
    }

    func write(_ head: [UInt8], body: UnsafeRawBufferPointer, owner: any AnyObject & Sendable) {
        let sent = head.withUnsafeBytes { raw in
            let sent = trySend(raw, body)
            if sent >= 0, sent < raw.count { queue(UnsafeRawBufferPointer(rebasing: raw[sent...])) }
            return sent
        }
        let bodySent = max(0, sent - head.count)
        guard sent >= 0, bodySent < body.count, handle != nil else { return }
        submit(WriteRequest(self, borrowing: UnsafeRawBufferPointer(rebasing: body[bodySent...]), owner: owner))
    }

    /// Bytes of `head` and then `body` that the system took at once, in one call; 0 when something is queued before
    /// them, -1 when the stream is gone.
    private func trySend(_ head: UnsafeRawBufferPointer, _ body: UnsafeRawBufferPointer) -> Int {
        guard handle != nil, !closesWhenDrained, !endsWriting else { return -1 }
        guard pendingWriteBytes == 0, head.count + body.count > 0 else { return 0 }
        let status = withUnsafeTemporaryAllocation(of: uv_buf_t.self, capacity: 2) { buffers in
            buffers.initializeElement(at: 0, to: uvBuffer(head.isEmpty ? body : head))
            buffers.initializeElement(at: 1, to: uvBuffer(body))
            return withStream { uv_try_write($0, buffers.baseAddress, head.isEmpty || body.isEmpty ? 1 : 2) } ?? -1
        }
        if status >= 0 {
            acceptedBytes += UInt64(status)
            return Int(status)
        }
        guard status != UV_EAGAIN.rawValue else { return 0 }
        failure = LoopError("\(peer): \(describeStatus(status))")
        closeNow()
        return -1
    }

    private func queue(_ bytes: UnsafeRawBufferPointer) { submit(WriteRequest(self, copying: bytes)) }

    private func submit(_ request: WriteRequest) {
        var buffer = uvBuffer(request.bytes)
        let raw = UnsafeMutablePointer<uv_write_t>.allocate(capacity: 1)
        raw.pointee.data = Unmanaged.passRetained(request).toOpaque()
        let status = withStream { stream in
            uv_write(raw, stream, &buffer, 1) { raw, status in
                guard let raw, let data = raw.pointee.data else { return }
                let request = Unmanaged<WriteRequest>.fromOpaque(data).takeRetainedValue()
                raw.deallocate()
                request.stream.loop.callback { request.stream.didWrite(status) }
            }
        }
        guard status != 0 else {
            openRequests += 1
            acceptedBytes += UInt64(request.count)
            return
        }
        Unmanaged.passUnretained(request).release()
        raw.deallocate()
        failure = status.map { LoopError("\(peer): \(describeStatus($0))") }
        closeNow()
    }

    private func didWrite(_ status: Int32) {
        openRequests -= 1
        if status < 0, status != UV_ECANCELED.rawValue {
            failure = LoopError("\(peer): \(describeStatus(status))")
            closeNow()
        }
        guard openRequests == 0, handle != nil else { return }
        if closesWhenDrained { closeNow() } else { onDrained?() }
    }

    // MARK: Closing

    func endWriting() {
        guard handle != nil, !closesWhenDrained, !endsWriting else { return }
        endsWriting = true
        let request = UnsafeMutablePointer<uv_shutdown_t>.allocate(capacity: 1)
        let status = withStream { uv_shutdown(request, $0) { request, _ in request?.deallocate() } }
        if status != 0 { request.deallocate() }
    }

    func close(withinMicroseconds limit: UInt64) {
        guard handle != nil, !closesWhenDrained else { return }
        closesWhenDrained = true
        guard openRequests > 0 else { return closeNow() }
        closeTimer = loop.schedule(afterMicroseconds: limit) { [weak self] in
            guard let self else { return }
            failure = LoopError("\(peer) did not take its last \(pendingWriteBytes) bytes in time")
            abort()
        }
    }

    func abort() {
        guard let handle = takeHandle() else { return }
        if uv_tcp_close_reset(handle, streamClosed) != 0 { close(handle) }
    }

    func closeNow() {
        if let handle = takeHandle() { close(handle) }
    }

    private func takeHandle() -> UnsafeMutablePointer<uv_tcp_t>? {
        loop.assertIsolated()
        defer { handle = nil }
        closeTimer?.cancel()
        closeTimer = nil
        return handle
    }

    private func close(_ handle: UnsafeMutablePointer<uv_tcp_t>) {
        handle.withMemoryRebound(to: uv_handle_t.self, capacity: 1) { uv_close($0, streamClosed) }
    }

    fileprivate func closed() { loop.callback { finish() } }

    private func finish() {
        let onClose = self.onClose
        (self.onClose, onBytes, onDrained, onEnd) = (nil, nil, nil, nil)
        onClose?(failure)
    }
}

private func streamClosed(_ handle: UnsafeMutablePointer<uv_handle_t>?) {
    guard let handle, let data = handle.pointee.data else { return }
    let stream = Unmanaged<UVStream>.fromOpaque(data).takeRetainedValue()
    handle.deallocate()
    stream.closed()
}

/// Bytes on their way out, and whoever keeps them alive.
private final class WriteRequest {
    let stream: UVStream
    let bytes: UnsafeRawBufferPointer
    private let copy: UnsafeMutableRawBufferPointer?
    private let owner: AnyObject?

    var count: Int { bytes.count }

    init(_ stream: UVStream, copying bytes: UnsafeRawBufferPointer) {
        self.stream = stream
        let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 16)
        copy.copyMemory(from: bytes)
        self.copy = copy
        self.bytes = UnsafeRawBufferPointer(copy)
        owner = nil
    }

    init(_ stream: UVStream, borrowing bytes: UnsafeRawBufferPointer, owner: AnyObject) {
        self.stream = stream
        self.bytes = bytes
        self.owner = owner
        copy = nil
    }

    deinit { copy?.deallocate() }
}

/// The bytes as libuv wants them; it does not write to what it sends.
private func uvBuffer(_ bytes: UnsafeRawBufferPointer) -> uv_buf_t {
    uv_buf_t(
        base: bytes.baseAddress.map { UnsafeMutablePointer(mutating: $0.assumingMemoryBound(to: CChar.self)) },
        len: bytes.count)
}

func describeStatus(_ status: Int32) -> String { String(cString: uv_strerror(status)) }

func describeAddress(_ address: UnsafePointer<sockaddr>) -> String {
    SocketAddress(copying: address).map { SocketAddress.text($0.host, $0.port) } ?? "unknown"
}
