/// Why a request got no answer, or only a part of one.
public enum HTTPClientError: Error, Sendable, Equatable, CustomStringConvertible {
    /// No connection could be made.
    case cannotConnect(String)
    /// The connection was lost before the answer was complete.
    case disconnected(String)
    /// The answer was not complete in time.
    case timedOut
    /// The server sent something that is not HTTP/1.1, or more than was allowed.
    case malformed(String)
    /// The task was cancelled, or the answer was given up.
    case cancelled

    /// One sentence.
    public var description: String {
        switch self {
        case .cannotConnect(let reason): reason
        case .disconnected(let reason): "The connection was lost: \(reason)."
        case .timedOut: "The answer was not complete in time."
        case .malformed(let reason): "The answer cannot be used: \(reason)."
        case .cancelled: "The request was given up."
        }
    }
}

/// The bounds of an HTTP client. Bytes and microseconds.
public struct HTTPClientLimits: Sendable, Equatable {
    /// Status line and headers of one answer.
    public var headerBytes = 65536
    /// Body bytes that are held before the server is made to wait.
    public var bufferedBytes = 1 << 20
    /// Bytes of a body that is read as a whole.
    public var bodyBytes = 16 << 20
    /// How long a connection may take to be made.
    public var connectMicroseconds: UInt64 = 5_000_000
    /// How long a connection is kept for the next request; servers commonly keep it longer.
    public var idleMicroseconds: UInt64 = 15_000_000
    /// Connections kept for the next request.
    public var idleConnections = 4096

    /// The defaults.
    public init() {}
}
