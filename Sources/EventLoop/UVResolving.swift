import CLibuv
import Glibc

extension UVLoop {
    /// IPv4 addresses that `host` stands for, from the system's resolver; an address stands for itself. From any executor.
    public func addresses(of host: String) async throws(LoopError) -> [String] {
        try await socketAddresses(of: host).map(describe)
    }

    /// The address to connect to; the first one of a name that has several.
    func resolve(_ host: String, _ port: Int) async throws(LoopError) -> sockaddr_in {
        guard var address = try await socketAddresses(of: host).first else {
            throw LoopError("\(host) has no IPv4 address")
        }
        address.sin_port = in_port_t(UInt16(truncatingIfNeeded: port).bigEndian)
        return address
    }

    private func socketAddresses(of host: String) async throws(LoopError) -> [sockaddr_in] {
        var address = sockaddr_in()
        if uv_ip4_addr(host, 0, &address) == 0 { return [address] }
        let result: Result<[sockaddr_in], LoopError> = await withCheckedContinuation { continuation in
            execute { [self] in
                guard !isStopping else {
                    let error = LoopError("\(host) cannot be resolved: the loop is stopping")
                    return continuation.resume(returning: .failure(error))
                }
                Lookup(self, host, continuation).begin()
            }
        }
        return try result.get()
    }
}

private func describe(_ address: sockaddr_in) -> String {
    var address = address
    var text = [CChar](repeating: 0, count: Int(INET_ADDRSTRLEN))
    uv_ip4_name(&address, &text, text.count)
    return String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
}

/// One question to the system's resolver, on a thread of libuv's pool.
private final class Lookup: @unchecked Sendable {
    let loop: UVLoop
    private let host: String
    private let continuation: CheckedContinuation<Result<[sockaddr_in], LoopError>, Never>

    init(
        _ loop: UVLoop, _ host: String, _ continuation: CheckedContinuation<Result<[sockaddr_in], LoopError>, Never>
    ) {
        self.loop = loop
        self.host = host
        self.continuation = continuation
    }

    func begin() {
        var hints = addrinfo()
        hints.ai_family = AF_INET
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
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
        var addresses: [sockaddr_in] = []
        var next = list
        while let entry = next {
            if let socket = entry.pointee.ai_addr, entry.pointee.ai_family == AF_INET {
                addresses.append(UnsafeRawPointer(socket).loadUnaligned(as: sockaddr_in.self))
            }
            next = entry.pointee.ai_next
        }
        continuation.resume(returning: .success(addresses))
    }
}
