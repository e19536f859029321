import Checkpoint

/// When and how a service tells how far the reading of its weights is. A pure value; times are nanoseconds.
package struct LoadReports: Sendable {
    /// What takes less is not told, and what takes more is told no more often.
    package static let pause: Int64 = 500_000_000

    private var next: Int64
    private var isTelling = false

    /// Reports of a service that started at `start`.
    package init(start: Int64) { next = start + Self.pause }

    /// The text to show now: nil to leave what is shown, empty when nothing is at work any more.
    package mutating func text(_ progress: LoadProgress, now: Int64) -> String? {
        guard progress.done < progress.total else {
            defer { isTelling = false }
            return isTelling ? "" : nil
        }
        guard now >= next else { return nil }
        next = now + Self.pause
        isTelling = true
        let what = progress.phase == .loading ? "loading weights" : "digesting weights, once for these files"
        let percent = Int(Double(progress.done) / Double(progress.total) * 100)
        return "\(what), \(Self.gibibytes(progress.done)) of \(Self.gibibytes(progress.total)) GiB (\(percent) %)"
    }

    private static func gibibytes(_ bytes: Int) -> String {
        "\((Double(bytes) / Double(1 << 30) * 10).rounded() / 10)"
    }
}
