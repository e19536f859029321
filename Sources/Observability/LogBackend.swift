import Glibc
import Synchronization

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

/// Keeps the latest records in memory, for tests.
public final class MemoryLog: LogBackend {
    private struct State {
        var records: [LogRecord] = []
        var dropped = 0
    }

    private let capacity: Int
    private let state = Mutex(State())

    /// A log of the latest `capacity` records, at least 1.
    public init(capacity: Int = 1024) { self.capacity = max(1, capacity) }

    /// Keeps the record; the oldest gives way.
    public func write(_ record: LogRecord) {
        state.withLock { state in
            if state.records.count >= capacity {
                state.records.removeFirst()
                state.dropped += 1
            }
            state.records.append(record)
        }
    }

    /// The records, oldest first.
    public var records: [LogRecord] { state.withLock { $0.records } }

    /// Records that gave way.
    public var droppedCount: Int { state.withLock { $0.dropped } }
}
