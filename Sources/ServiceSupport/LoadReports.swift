import Checkpoint
import Synchronization

/// When and how to tell how far the reading of weights is: after two seconds, and then every two. Times are nanoseconds.
final class LoadReports: Sendable {
    static let pause: Int64 = 2_000_000_000
    private let next: Mutex<Int64>

    init(start: Int64) { next = Mutex(start + Self.pause) }

    /// The line to print now, if one is due.
    func line(_ progress: LoadProgress, now: Int64) -> String? {
        let isDue = next.withLock { next in
            guard now >= next else { return false }
            next = now + Self.pause
            return true
        }
        guard isDue, progress.total > 0 else { return nil }
        let what = progress.phase == .loading ? "loading weights" : "digesting weights, once for these files"
        func gibibytes(_ bytes: Int) -> String {
            let tenths = (Double(bytes) / Double(1 << 30) * 10).rounded() / 10
            return "\(tenths)"
        }
        let percent = Int((Double(progress.done) / Double(progress.total) * 100).rounded(.down))
        return "\(what): \(gibibytes(progress.done)) of \(gibibytes(progress.total)) GiB (\(percent) %)"
    }
}
