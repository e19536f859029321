import CLibuv
import Glibc

extension UVLoop {
    /// Connects to `host:port`; of a name, to the first of its addresses that answers. From any executor.
    ///
    /// - Throws: `LoopError` with the address and the reason of the last attempt.
    public func connect(
        host: String, port: Int, timeoutMicroseconds: UInt64
    ) async throws(LoopError) -> any ByteStream {
        let name = SocketAddress.text(host, port)
        guard (1...65535).contains(port) else { throw LoopError("\(name): not a port") }
        let end = now &+ timeoutMicroseconds
        let addresses = try await socketAddresses(of: host, port: port)
        var failure = LoopError("\(name): no connection within \(timeoutMicroseconds / 1000) ms")
        for (index, address) in addresses.enumerated() {
            let left = end > now ? end - now : 1
            do throws(LoopError) {
                return try await connect(
                    to: address, name, timeoutMicroseconds: left / UInt64(addresses.count - index))
            } catch {
                failure = error
            }
        }
        throw failure
    }

    private func connect(
        to address: SocketAddress, _ name: String, timeoutMicroseconds: UInt64
    ) async throws(LoopError) -> UVStream {
        let result: Result<UVStream, LoopError> = await withCheckedContinuation { continuation in
            execute { [self] in
                guard !isStopping else {
                    return continuation.resume(returning: .failure(LoopError("\(name): the loop is stopping")))
                }
                ConnectAttempt(self, address, name, continuation).begin(timeoutMicroseconds)
            }
        }
        return try result.get()
    }
}

/// One connect: ends exactly once, by success, failure or time-out.
private final class ConnectAttempt: Sendable {
    private let loop: UVLoop
    private let address: SocketAddress
    private let name: String
    private let continuation: LoopBound<CheckedContinuation<Result<UVStream, LoopError>, Never>?>
    private let stream: UVStream
    private let timer: LoopBound<(any LoopTimer)?>

    init(
        _ loop: UVLoop, _ address: SocketAddress, _ name: String,
        _ continuation: CheckedContinuation<Result<UVStream, LoopError>, Never>
    ) {
        self.loop = loop
        self.address = address
        self.name = name
        self.continuation = LoopBound(continuation, on: loop)
        timer = LoopBound(nil, on: loop)
        stream = UVStream(loop)
    }

    func begin(_ timeoutMicroseconds: UInt64) {
        let request = UnsafeMutablePointer<uv_connect_t>.allocate(capacity: 1)
        request.pointee.data = Unmanaged.passRetained(self).toOpaque()
        timer.value = loop.schedule(afterMicroseconds: timeoutMicroseconds) { [self] in
            finish(.failure(LoopError("\(name): no connection within \(timeoutMicroseconds / 1000) ms")))
        }
        guard let handle = stream.handle else { return }
        let status = address.withPointer { socket, _ in
            uv_tcp_connect(request, handle, socket) { request, status in
                guard let request, let data = request.pointee.data else { return }
                let attempt = Unmanaged<ConnectAttempt>.fromOpaque(data).takeRetainedValue()
                request.deallocate()
                attempt.loop.callback { attempt.didConnect(status) }
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
        guard let continuation = continuation.value else { return }
        self.continuation.value = nil
        timer.value?.cancel()
        timer.value = nil
        if case .failure = result { stream.closeNow() }
        continuation.resume(returning: result)
    }
}
