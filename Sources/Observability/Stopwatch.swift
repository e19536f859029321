import Glibc

/// Adds up the time spent in pieces of work, for counters that say where a step's time goes.
public struct Stopwatch: Sendable {
    /// All pieces together.
    public private(set) var nanoseconds: Int64 = 0

    /// A stopwatch at zero.
    public init() {}

    /// Adds the time since `start`, a value of `now`.
    public mutating func add(since start: Int64) { nanoseconds += Self.now - start }

    /// Nanoseconds of a monotonic clock.
    public static var now: Int64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
    }
}
