import CLibuv
import Glibc

extension UVLoop {
    /// Takes `host:port` (0: a free port) for this process now, and returns the port: a later `listen` there, with that
    /// port, accepts connections; until then they are refused. `host` is an address or a name, which stands for all its
    /// addresses that this machine has. From any thread.
    ///
    /// - Throws: a `LoopError` that says why, with `isAddressInUse` when somebody else has the port.
    public func reserve(host: String, port: Int) throws(LoopError) -> Int {
        var sockets: [Int32] = []
        var chosen = port
        var missing: LoopError?
        do throws(LoopError) {
            for address in try Self.addressesToBind(host, port: port) {
                do throws(BindError) {
                    let socket = try Self.bind(address.with(port: chosen))
                    sockets.append(socket)
                    chosen = Self.port(of: socket)
                } catch {
                    let failure = LoopError(
                        "cannot listen on \(SocketAddress.text(host, port)): \(error.sentence)",
                        isAddressInUse: error.number == EADDRINUSE)
                    guard error.isOfTheMachine else { throw failure }
                    missing = failure
                }
            }
            guard !sockets.isEmpty else { throw missing ?? LoopError("cannot listen on \(host)") }
        } catch {
            for socket in sockets { Glibc.close(socket) }
            throw error
        }
        let place = SocketAddress.text(host, chosen)
        let replaced = reservations.withLock { $0.updateValue(sockets, forKey: place) }
        for socket in replaced ?? [] { Glibc.close(socket) }
        return chosen
    }

    /// Accepts connections on `host:port`; throws when the address cannot be bound.
    public func listen(
        host: String, port: Int, onAccept: @escaping @Sendable (any ByteStream) -> Void
    ) throws(LoopError) -> any Listener {
        guard !isStopping else {
            throw LoopError("cannot listen on \(SocketAddress.text(host, port)): the loop is stopping")
        }
        var place = SocketAddress.text(host, port)
        if port == 0 || !reservations.withLock({ $0.keys.contains(place) }) {
            place = SocketAddress.text(host, try reserve(host: host, port: port))
        }
        let sockets = reservations.withLock { $0.removeValue(forKey: place) } ?? []
        var parts: [UVListener] = []
        for (index, socket) in sockets.enumerated() {
            do throws(LoopError) {
                parts.append(try UVListener(self, socket: socket, place, onAccept))
            } catch {
                for rest in sockets[(index + 1)...] { Glibc.close(rest) }
                for part in parts { part.close() }
                throw error
            }
        }
        return UVListeners(parts: parts)
    }

    /// A socket bound to `address`.
    private static func bind(_ address: SocketAddress) throws(BindError) -> Int32 {
        let kind = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
        let socket = Glibc.socket(address.family, kind, 0)
        guard socket >= 0 else { throw BindError(number: errno) }
        var yes: Int32 = 1
        setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, socklen_t(MemoryLayout<Int32>.size))
        guard address.withPointer({ Glibc.bind(socket, $0, $1) }) == 0 else {
            let error = BindError(number: errno)
            Glibc.close(socket)
            throw error
        }
        return socket
    }

    /// The port that a socket is bound to.
    static func port(of socket: Int32) -> Int {
        var storage = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        return withUnsafeMutablePointer(to: &storage) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                guard getsockname(socket, address, &length) == 0 else { return 0 }
                return SocketAddress(copying: address)?.port ?? 0
            }
        }
    }
}

/// Why an address could not be bound.
private struct BindError: Error {
    let number: Int32

    /// The machine lacks this address or family, and may have another of the same name.
    var isOfTheMachine: Bool { number == EADDRNOTAVAIL || number == EAFNOSUPPORT }

    var sentence: String {
        switch number {
        case EADDRINUSE: "the port is in use by another program"
        case EADDRNOTAVAIL: "this machine has no such address"
        default: String(cString: strerror(number))
        }
    }
}

/// The listening sockets of all addresses of one name.
private final class UVListeners: Listener {
    private let parts: [UVListener]

    init(parts: [UVListener]) { self.parts = parts }

    var port: Int { parts.first?.port ?? 0 }

    func close() { for part in parts { part.close() } }
}

/// A listening TCP socket.
final class UVListener: Listener, Closable {
    private let loop: UVLoop
    private let handle: LoopBound<UnsafeMutablePointer<uv_tcp_t>?>
    private let onAccept: @Sendable (any ByteStream) -> Void
    let port: Int

    /// Takes over a socket that is bound.
    init(
        _ loop: UVLoop, socket: Int32, _ name: String, _ onAccept: @escaping @Sendable (any ByteStream) -> Void
    ) throws(LoopError) {
        self.loop = loop
        self.onAccept = onAccept
        port = UVLoop.port(of: socket)
        let handle = UnsafeMutablePointer<uv_tcp_t>.allocate(capacity: 1)
        self.handle = LoopBound(nil, on: loop)
        self.handle.value = handle
        uv_tcp_init(loop.handle, handle)
        handle.pointee.data = Unmanaged.passRetained(self).toOpaque()
        var status = uv_tcp_open(handle, socket)
        if status != 0 { Glibc.close(socket) }
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
            let isInUse = status == UV_EADDRINUSE.rawValue
            throw LoopError(
                "cannot listen on \(name): "
                    + (isInUse ? BindError(number: EADDRINUSE).sentence : describeStatus(status)),
                isAddressInUse: isInUse)
        }
    }

    private func accept() {
        guard let handle = handle.value else { return }
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
        guard let handle = handle.value else { return }
        self.handle.value = nil
        handle.withMemoryRebound(to: uv_handle_t.self, capacity: 1) { handle in
            uv_close(handle) { handle in
                guard let data = handle?.pointee.data else { return }
                Unmanaged<UVListener>.fromOpaque(data).release()
                handle?.deallocate()
            }
        }
    }
}
