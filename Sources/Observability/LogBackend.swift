import Glibc

/// Where log records go. Called from any thread.
public protocol LogBackend: Sendable {
    /// Takes a record; must not fail and must not wait for long.
    func write(_ record: LogRecord)
}

/// Writes each record as one line to the standard error stream by a single call.
public struct StandardErrorLog: LogBackend {
    /// A backend for the standard error stream.
    public init() {}

    /// Writes the line. What the stream does not take is lost: logging never stops a service.
    public func write(_ record: LogRecord) {
        let bytes = Array((record.line + "\n").utf8)
        var written = 0
        while written < bytes.count {
            let count = bytes.withUnsafeBytes {
                Glibc.write(STDERR_FILENO, $0.baseAddress?.advanced(by: written), $0.count - written)
            }
            guard count > 0 || errno == EINTR else { return }
            written += max(0, count)
        }
    }
}
