import CLibuv
import Glibc

/// An IPv4 or IPv6 address with a port.
public struct SocketAddress: Sendable {
    private var storage = sockaddr_storage()

    /// Parses the text of an address, IPv6 with or without brackets; nil for a name and for a port that is none.
    public init?(_ host: String, port: Int) {
        guard (0...65535).contains(port) else { return nil }
        let host = Self.withoutBrackets(host)
        let status = withUnsafeMutablePointer(to: &storage) { pointer in
            let four = pointer.withMemoryRebound(to: sockaddr_in.self, capacity: 1) {
                uv_ip4_addr(host, Int32(port), $0)
            }
            guard four != 0 else { return four }
            return pointer.withMemoryRebound(to: sockaddr_in6.self, capacity: 1) {
                uv_ip6_addr(host, Int32(port), $0)
            }
        }
        guard status == 0 else { return nil }
    }

    /// What a resolver or a socket says; nil for a family that is neither.
    init?(copying address: UnsafePointer<sockaddr>) {
        let raw = UnsafeRawPointer(address)
        switch Int32(address.pointee.sa_family) {
        case AF_INET:
            withUnsafeMutableBytes(of: &storage) {
                $0.copyMemory(from: UnsafeRawBufferPointer(start: raw, count: MemoryLayout<sockaddr_in>.size))
            }
        case AF_INET6:
            withUnsafeMutableBytes(of: &storage) {
                $0.copyMemory(from: UnsafeRawBufferPointer(start: raw, count: MemoryLayout<sockaddr_in6>.size))
            }
        default: return nil
        }
    }

    /// `AF_INET` or `AF_INET6`.
    var family: Int32 { Int32(storage.ss_family) }

    /// The same address with another port.
    func with(port: Int) -> SocketAddress {
        var copy = self
        let number = in_port_t(UInt16(truncatingIfNeeded: port).bigEndian)
        withUnsafeMutablePointer(to: &copy.storage) { pointer in
            // Both families have the port at the same place.
            pointer.withMemoryRebound(to: sockaddr_in.self, capacity: 1) { $0.pointee.sin_port = number }
        }
        return copy
    }

    /// Calls `body` with the address as the system takes it.
    func withPointer<Value>(_ body: (UnsafePointer<sockaddr>, socklen_t) -> Value) -> Value {
        let length = family == AF_INET6 ? MemoryLayout<sockaddr_in6>.size : MemoryLayout<sockaddr_in>.size
        return withUnsafePointer(to: storage) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(length)) }
        }
    }

    /// The port.
    var port: Int {
        withUnsafePointer(to: storage) { pointer in
            pointer.withMemoryRebound(to: sockaddr_in.self, capacity: 1) { Int(UInt16(bigEndian: $0.pointee.sin_port)) }
        }
    }

    /// The text of the address without its port. IPv4 that came in by an IPv6 socket is IPv4.
    var host: String {
        var text = [CChar](repeating: 0, count: 64)
        withUnsafePointer(to: storage) { pointer in
            if family == AF_INET6 {
                pointer.withMemoryRebound(to: sockaddr_in6.self, capacity: 1) {
                    _ = uv_ip6_name($0, &text, text.count)
                }
            } else {
                pointer.withMemoryRebound(to: sockaddr_in.self, capacity: 1) { _ = uv_ip4_name($0, &text, text.count) }
            }
        }
        let name = String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        return name.hasPrefix("::ffff:") && name.contains(".") ? String(name.dropFirst(7)) : name
    }

    /// `host:port`, with brackets around an IPv6 address.
    public static func text(_ host: String, _ port: Int) -> String {
        host.contains(":") && !host.hasPrefix("[") ? "[\(host)]:\(port)" : "\(host):\(port)"
    }

    /// `::1` of `[::1]`.
    public static func withoutBrackets(_ host: String) -> String {
        host.hasPrefix("[") && host.hasSuffix("]") && host.count > 2 ? String(host.dropFirst().dropLast()) : host
    }
}
