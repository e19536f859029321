import CLibuv
import Glibc

extension UVLoop {
    /// Accepts IPv4 connections on `host:port`; throws when the address cannot be bound.
    public func listen(
        host: String, port: Int, onAccept: @escaping @Sendable (any ByteStream) -> Void
    ) throws(LoopError) -> any Listener {
        guard !isStopping else { throw LoopError("cannot listen on \(host):\(port): the loop is stopping") }
        var address = sockaddr_in()
        guard (0...65535).contains(port), uv_ip4_addr(host, Int32(port), &address) == 0 else {
            throw LoopError("cannot listen on \(host):\(port): not an IPv4 address and a port")
        }
        return try UVListener(self, address, "\(host):\(port)", onAccept)
    }

    /// Connects to `host:port`, resolving a name to an IPv4 address if need be; from any executor.
    public func connect(
        host: String, port: Int, timeoutMicroseconds: UInt64
    ) async throws(LoopError) -> any ByteStream {
        guard (1...65535).contains(port) else { throw LoopError("\(host):\(port): not a port") }
        let address = try await resolve(host, port)
        let result: Result<UVStream, LoopError> = await withCheckedContinuation { continuation in
            execute { [self] in
                guard !isStopping else {
                    let error = LoopError("\(host):\(port): the loop is stopping")
                    return continuation.resume(returning: .failure(error))
                }
                ConnectAttempt(self, address, "\(host):\(port)", continuation).begin(timeoutMicroseconds)
            }
        }
        return try result.get()
    }
}

/// One connect: ends exactly once, by success, failure or time-out.
private final class ConnectAttempt: @unchecked Sendable {
    private let loop: UVLoop
    private var address: sockaddr_in
    private let name: String
    private var continuation: CheckedContinuation<Result<UVStream, LoopError>, Never>?
    private let stream: UVStream
    private var timer: (any LoopTimer)?

    init(
        _ loop: UVLoop, _ address: sockaddr_in, _ name: String,
        _ continuation: CheckedContinuation<Result<UVStream, LoopError>, Never>
    ) {
        self.loop = loop
        self.address = address
        self.name = name
        self.continuation = continuation
        stream = UVStream(loop)
    }

    func begin(_ timeoutMicroseconds: UInt64) {
        let request = UnsafeMutablePointer<uv_connect_t>.allocate(capacity: 1)
        request.pointee.data = Unmanaged.passRetained(self).toOpaque()
        timer = loop.schedule(afterMicroseconds: timeoutMicroseconds) { [self] in
            finish(.failure(LoopError("\(name): no connection within \(timeoutMicroseconds / 1000) ms")))
        }
        guard let handle = stream.handle else { return }
        let status = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { socket in
                uv_tcp_connect(request, handle, socket) { request, status in
                    guard let request, let data = request.pointee.data else { return }
                    let attempt = Unmanaged<ConnectAttempt>.fromOpaque(data).takeRetainedValue()
                    request.deallocate()
                    attempt.loop.callback { attempt.didConnect(status) }
                }
            }
        }
        guard status != 0 else { return }
        Unmanaged.passUnretained(self).release()
        request.deallocate()
        didConnect(status)
    }

    private func didConnect(_ status: Int32) {
        guard status == 0 else {
            finish(.failure(LoopError("\(name): \(describeStatus(status))")))
            return
        }
        stream.connected()
        finish(.success(stream))
    }

    private func finish(_ result: Result<UVStream, LoopError>) {
        guard let continuation else { return }
        self.continuation = nil
        timer?.cancel()
        timer = nil
        if case .failure = result { stream.closeNow() }
        continuation.resume(returning: result)
    }
}

/// A listening TCP socket.
final class UVListener: Listener, Closable, @unchecked Sendable {
    private let loop: UVLoop
    private var handle: UnsafeMutablePointer<uv_tcp_t>?
    private let onAccept: @Sendable (any ByteStream) -> Void
    private(set) var port = 0

    init(
        _ loop: UVLoop, _ address: sockaddr_in, _ name: String, _ onAccept: @escaping @Sendable (any ByteStream) -> Void
    ) throws(LoopError) {
        self.loop = loop
        self.onAccept = onAccept
        let handle = UnsafeMutablePointer<uv_tcp_t>.allocate(capacity: 1)
        self.handle = handle
        uv_tcp_init(loop.handle, handle)
        handle.pointee.data = Unmanaged.passRetained(self).toOpaque()
        var address = address
        var status = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { uv_tcp_bind(handle, $0, 0) }
        }
        if status == 0 {
            status = handle.withMemoryRebound(to: uv_stream_t.self, capacity: 1) { stream in
                uv_listen(stream, 1024) { stream, status in
                    guard let data = stream?.pointee.data, status == 0 else { return }
                    let listener = Unmanaged<UVListener>.fromOpaque(data).takeUnretainedValue()
                    listener.loop.callback { listener.accept() }
                }
            }
        }
        guard status == 0 else {
            closeNow()
            throw LoopError("cannot listen on \(name): \(describeStatus(status))")
        }
        var length = Int32(MemoryLayout<sockaddr_in>.size)
        withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { _ = uv_tcp_getsockname(handle, $0, &length) }
        }
        port = Int(UInt16(bigEndian: address.sin_port))
    }

    private func accept() {
        guard let handle else { return }
        let stream = UVStream(loop)
        let status = handle.withMemoryRebound(to: uv_stream_t.self, capacity: 1) { server in
            stream.withStream { uv_accept(server, $0) } ?? -1
        }
        guard status == 0 else { return stream.closeNow() }
        stream.connected()
        onAccept(stream)
    }

    func close() { closeNow() }

    func closeNow() {
        guard let handle else { return }
        self.handle = nil
        handle.withMemoryRebound(to: uv_handle_t.self, capacity: 1) { handle in
            uv_close(handle) { handle in
                guard let data = handle?.pointee.data else { return }
                Unmanaged<UVListener>.fromOpaque(data).release()
                handle?.deallocate()
            }
        }
    }
}
