/// Whether an open loop asked for more than the server can do: requests in flight and time to first token both rise
/// significantly, and by a good part, while requests keep arriving.
public enum Saturation: Sendable, Equatable {
    /// Not an open loop, or too little of one to tell; the sentence says why.
    case notJudged(String)
    /// The server keeps up.
    case none
    /// It does not. Requests in flight per second by which the backlog grows, and ms of TTFT per second.
    case over(inFlightPerSecond: Double, timeToFirstTokenPerSecond: Double)

    static let blockCount = 16
    private static let leastRequests = 60
    /// A rise over the window smaller than this part of the window's mean is not called over-saturation.
    private static let leastGrowth = 0.75

    /// Judges the requests of an open loop. Looks at the time from the first request's end to the last request's
    /// sending, so that neither filling up nor draining counts.
    public static func judge(_ records: [RequestRecord]) -> Saturation {
        guard records.count >= leastRequests else {
            return .notJudged("fewer than \(leastRequests) requests")
        }
        let first = records.map(\.ended).min() ?? 0
        let last = records.map(\.due).max() ?? 0
        guard last > first + 1_000_000 else {
            return .notJudged("requests arrived for less than a second after the first answer")
        }
        let width = Double(last - first) / Double(blockCount)
        let middles = (0..<blockCount).map { (Double($0) + 0.5) * width / 1e6 }
        let series = InFlightSeries(records)
        let inFlight = (0..<blockCount).map { block in
            series.mean(from: Double(first) + Double(block) * width, to: Double(first) + Double(block + 1) * width)
        }
        let arrived = records.filter { $0.due >= first && $0.timeToFirstToken != nil }.sorted { $0.due < $1.due }
        let waits = arrived.map { $0.queueTime + ($0.timeToFirstToken ?? 0) }
        guard let load = Trend(x: middles, y: inFlight),
            let wait = Trend(x: arrived.map { Double($0.due - first) / 1e6 }, y: waits)
        else { return .notJudged("too few answers") }
        let seconds = Double(last - first) / 1e6
        guard load.rises, wait.rises, grows(load, inFlight, seconds), grows(wait, waits, seconds) else { return .none }
        return .over(inFlightPerSecond: load.slope, timeToFirstTokenPerSecond: wait.slope)
    }

    private static func grows(_ trend: Trend, _ values: [Double], _ seconds: Double) -> Bool {
        trend.slope * seconds > leastGrowth * values.reduce(0, +) / Double(max(1, values.count))
    }
}

/// Requests in flight (due and not ended) over time, as a step function.
public struct InFlightSeries: Sendable {
    /// When the number changes, microseconds, rising.
    private let times: [UInt64]
    /// The number from that time on.
    private let levels: [Int]

    /// The series of `records`; `fromSending` leaves out what waits in the client.
    public init(_ records: [RequestRecord], fromSending: Bool = false) {
        var changes: [(time: UInt64, change: Int)] = []
        for record in records {
            changes.append((fromSending ? record.sent : record.due, 1))
            changes.append((record.ended, -1))
        }
        // an end before a beginning at the same time: a request that follows another is not beside it
        changes.sort { ($0.time, $0.change) < ($1.time, $1.change) }
        var level = 0
        levels = changes.map {
            level += $0.change
            return level
        }
        times = changes.map(\.time)
    }

    /// The highest number.
    public var peak: Int { levels.max() ?? 0 }

    /// The mean over a time, microseconds.
    public func mean(from start: Double, to end: Double) -> Double {
        guard end > start else { return 0 }
        var sum = 0.0
        for (index, level) in levels.enumerated() {
            let from = max(start, Double(times[index]))
            let to = min(end, index + 1 < times.count ? Double(times[index + 1]) : end)
            if to > from { sum += Double(level) * (to - from) }
        }
        return sum / (end - start)
    }
}
