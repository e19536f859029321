import Foundation
import Glibc

/// The process's standard output or error, written to at once and without ever failing: a reader that is gone, as in
/// `… | head`, must not end a service or crash a command. (`FileHandle.write` traps then.)
public enum StandardStream: Int32, Sendable {
    /// Standard output.
    case output = 1
    /// Standard error.
    case error = 2

    /// Longest wait for a stream that does not block and is full, milliseconds.
    private static let fullMilliseconds: Int32 = 1000

    /// Writes all of the text; what the stream does not take is lost.
    public func write(_ text: String) {
        let bytes = Array(text.utf8)
        var written = 0
        while written < bytes.count {
            let count = bytes.withUnsafeBytes {
                Glibc.write(rawValue, $0.baseAddress?.advanced(by: written), $0.count - written)
            }
            guard count < 0 else {
                written += count
                continue
            }
            guard errno == EINTR || (errno == EAGAIN && waitForRoom()) else { return }
        }
    }

    private func waitForRoom() -> Bool {
        var descriptor = pollfd(fd: rawValue, events: Int16(POLLOUT), revents: 0)
        return poll(&descriptor, 1, Self.fullMilliseconds) > 0
    }
}
