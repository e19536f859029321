/// When a process that died is started again: after pauses that double, and not for ever. A pure value; times are
/// microseconds.
public struct RestartPolicy: Sendable, Equatable {
    /// Pause after a first death.
    public static let firstPause: UInt64 = 100_000
    /// Longest pause.
    public static let longestPause: UInt64 = 5_000_000
    /// Deaths in a row after which it is given up.
    public static let maximumDeaths = 8
    /// A process that ran for so long was well, and what it died of begins anew.
    public static let healthyTime: UInt64 = 60_000_000

    private var deaths = 0

    /// A policy for a process that has not died yet.
    public init() {}

    /// The pause before the next start, or nil when it died too often in a row.
    public mutating func died(started: UInt64, now: UInt64) -> UInt64? {
        deaths = now - started >= Self.healthyTime ? 1 : deaths + 1
        guard deaths < Self.maximumDeaths else { return nil }
        return min(Self.firstPause << UInt64(deaths - 1), Self.longestPause)
    }
}
