import Observability
import Synchronization

/// Keeps all records.
final class MemoryLog: LogBackend {
    private let kept = Mutex<[LogRecord]>([])

    func write(_ record: LogRecord) { kept.withLock { $0.append(record) } }

    /// The records, oldest first.
    var records: [LogRecord] { kept.withLock { $0 } }
}
