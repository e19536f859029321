import EventLoop

/// A host name or address with a TCP port.
public struct HostPort: Sendable, Equatable, CustomStringConvertible {
    /// Name or address, without brackets.
    public let host: String
    /// TCP port, 1 to 65535.
    public let port: Int

    /// Parses `host:port` or `[address]:port`; nil when it is anything else.
    public init?(_ text: String) {
        guard let colon = text.lastIndex(of: ":"), case let digits = text[text.index(after: colon)...],
            digits.utf8.allSatisfy({ (48...57).contains($0) }), let port = Int(digits), (1...65535).contains(port)
        else { return nil }
        let name = String(text[..<colon])
        host = SocketAddress.withoutBrackets(name)
        // Without brackets nobody knows where an IPv6 address ends.
        guard !host.isEmpty, host != name || !name.contains(where: { ":[]".contains($0) }) else { return nil }
        guard host == name || SocketAddress(host, port: 0) != nil else { return nil }
        self.port = port
    }

    /// A host, without brackets, and a port of it.
    public init(host: String, port: Int) {
        self.host = host
        self.port = port
    }

    /// Where to call who listens on `host`: any address of this machine is its own.
    public static func calling(listener host: String, port: Int) -> HostPort {
        switch SocketAddress.withoutBrackets(host) {
        case "0.0.0.0": HostPort(host: "127.0.0.1", port: port)
        case "::": HostPort(host: "::1", port: port)
        case let host: HostPort(host: host, port: port)
        }
    }

    /// `host:port`, or `[address]:port` for IPv6.
    public var description: String { SocketAddress.text(host, port) }
}
