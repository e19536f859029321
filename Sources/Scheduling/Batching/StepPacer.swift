/// How many prompt rows may ride beside decode rows, learned from what steps took.
///
/// A step of decode rows alone takes some time d, a prompt row adds c. To keep the gap between two tokens of a running
/// stream within `stretch · d`, a step takes at most (stretch - 1) · d / c prompt rows, in whole GLA chunks of 64 and at
/// least one, so that prompts always move. Where d is unknown, or was last seen 256 mixed steps ago, one step goes
/// without prompts to measure it.
public struct StepPacer: Sendable, Equatable {
    /// How much longer than a decode step a mixed step should be at most.
    public var stretch = 1.75
    /// Microseconds of a step of decode rows alone, smoothed; 0 until one was seen.
    public private(set) var decodeMicroseconds = 0.0
    /// Microseconds one prompt row adds, smoothed; 0 until one was seen.
    public private(set) var rowMicroseconds = 0.0
    private static let remeasureAfter = 256
    private var isFed = false
    private var isMeasuring = false
    private var mixedSteps = 0

    /// A pacer that has seen nothing and allows the limit.
    public init() {}

    /// Learns from a step. One that took no time, as under a virtual clock, teaches nothing.
    public mutating func record(decodeRows: Int, prefillRows: Int, microseconds: UInt64) {
        precondition(decodeRows >= 0 && prefillRows >= 0, "a step has no fewer rows than none")
        guard microseconds > 0 else { return }
        let took = Double(microseconds)
        isFed = true
        if prefillRows == 0 {
            guard decodeRows > 0 else { return }
            decodeMicroseconds = Self.smooth(decodeMicroseconds, took)
            mixedSteps = 0
        } else {
            let own = decodeRows == 0 ? took : max(0, took - decodeMicroseconds)
            rowMicroseconds = Self.smooth(rowMicroseconds, own / Double(prefillRows))
            if decodeRows > 0 { mixedSteps += 1 }
        }
    }

    /// Prompt rows allowed beside decode rows in the next step: 64 to `limit`, or none to measure.
    public mutating func prefillRows(limit: Int) -> Int {
        guard isFed else { return limit }
        if !isMeasuring, decodeMicroseconds == 0 || mixedSteps >= Self.remeasureAfter {
            isMeasuring = true
            return 0
        }
        isMeasuring = false
        guard decodeMicroseconds > 0, rowMicroseconds > 0 else { return 64 }
        let rows = (stretch - 1) * decodeMicroseconds / rowMicroseconds
        return max(64, min(limit, Int(min(rows, Double(limit))) / 64 * 64))
    }

    private static func smooth(_ old: Double, _ new: Double) -> Double {
        old == 0 ? new : old + (new - old) / 8
    }
}
