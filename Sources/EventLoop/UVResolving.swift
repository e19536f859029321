import CLibuv
import Glibc

extension UVLoop {
    /// Addresses that `host` stands for, from the system's resolver: the IPv4 ones, or the IPv6 ones where there are no
    /// others, since an instance that has both would be taken for two. An address stands for itself. From any executor.
    ///
    /// - Throws: `LoopError` with the system's reason.
    public func addresses(of host: String) async throws(LoopError) -> [String] {
        let all = try await socketAddresses(of: host, port: 0)
        let four = all.filter { $0.family == AF_INET }
        return (four.isEmpty ? all : four).map(\.host)
    }

    /// What to connect to for `host:port`, in the resolver's order; never empty.
    func socketAddresses(of host: String, port: Int) async throws(LoopError) -> [SocketAddress] {
        if let address = SocketAddress(host, port: port) { return [address] }
        let result: Result<[SocketAddress], LoopError> = await withCheckedContinuation { continuation in
            execute { [self] in
                guard !isStopping else {
                    let error = LoopError("\(host) cannot be resolved: the loop is stopping")
                    return continuation.resume(returning: .failure(error))
                }
                Lookup(self, host, continuation).begin()
            }
        }
        let addresses = try result.get()
        guard !addresses.isEmpty else { throw LoopError("\(host) has no address") }
        return addresses.map { $0.with(port: port) }
    }

    /// The same at once, for a socket to listen on: that is done once, at start.
    static func addressesToBind(_ host: String, port: Int) throws(LoopError) -> [SocketAddress] {
        if let address = SocketAddress(host, port: port) { return [address] }
        let place = SocketAddress.text(host, port)
        guard (0...65535).contains(port) else { throw LoopError("cannot listen on \(place): not a port") }
        guard !host.isEmpty else { throw LoopError("cannot listen on \(place): not an address") }
        var hints = streamHints()
        var list: UnsafeMutablePointer<addrinfo>?
        let status = getaddrinfo(host, nil, &hints, &list)
        defer { if let list { freeaddrinfo(list) } }
        guard status == 0 else {
            throw LoopError(
                "cannot listen on \(place): not an address, and no name either (\(String(cString: gai_strerror(status))))"
            )
        }
        let addresses = addresses(in: list).map { $0.with(port: port) }
        guard !addresses.isEmpty else { throw LoopError("cannot listen on \(place): the name has no address") }
        return addresses
    }

    fileprivate static func streamHints() -> addrinfo {
        var hints = addrinfo()
        hints.ai_family = AF_UNSPEC
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        return hints
    }

    /// Each address once: a hosts file may name one twice.
    fileprivate static func addresses(in list: UnsafeMutablePointer<addrinfo>?) -> [SocketAddress] {
        var addresses: [SocketAddress] = []
        var next = list
        while let entry = next {
            if let socket = entry.pointee.ai_addr, let address = SocketAddress(copying: socket),
                !addresses.contains(where: { $0.family == address.family && $0.host == address.host })
            {
                addresses.append(address)
            }
            next = entry.pointee.ai_next
        }
        return addresses
    }
}

/// One question to the system's resolver, on a thread of libuv's pool.
private final class Lookup: Sendable {
    let loop: UVLoop
    private let host: String
    private let continuation: CheckedContinuation<Result<[SocketAddress], LoopError>, Never>

    init(
        _ loop: UVLoop, _ host: String,
        _ continuation: CheckedContinuation<Result<[SocketAddress], LoopError>, Never>
    ) {
        self.loop = loop
        self.host = host
        self.continuation = continuation
    }

    func begin() {
        var hints = UVLoop.streamHints()
        let request = UnsafeMutablePointer<uv_getaddrinfo_t>.allocate(capacity: 1)
        request.pointee.data = Unmanaged.passRetained(self).toOpaque()
        let status = uv_getaddrinfo(
            loop.handle, request,
            { request, status, list in
                guard let request, let data = request.pointee.data else { return }
                let lookup = Unmanaged<Lookup>.fromOpaque(data).takeRetainedValue()
                request.deallocate()
                lookup.loop.callback { lookup.finish(status, list) }
                uv_freeaddrinfo(list)
            }, host, nil, &hints)
        guard status != 0 else { return }
        Unmanaged.passUnretained(self).release()
        request.deallocate()
        finish(status, nil)
    }

    private func finish(_ status: Int32, _ list: UnsafeMutablePointer<addrinfo>?) {
        guard status == 0 else {
            continuation.resume(returning: .failure(LoopError("\(host) cannot be resolved: \(describeStatus(status))")))
            return
        }
        continuation.resume(returning: .success(UVLoop.addresses(in: list)))
    }
}
