import Plots

/// A run as it goes, and the line that shows it.
public struct LoadProgress: Sendable {
    /// Requests of the workload.
    public let total: Int
    /// Requests whose answers came to their end.
    public private(set) var completed = 0
    /// Requests given up, as planned or at the end.
    public private(set) var givenUp = 0
    /// Requests that failed.
    public private(set) var failed = 0
    /// Output tokens so far.
    public private(set) var tokens = 0
    private var recent: [Double] = []
    private var shown = (time: 0.0, tokens: 0)

    /// A run of `total` requests.
    public init(total: Int) { self.total = total }

    /// Output came.
    public mutating func received(tokens count: Int) { tokens += count }

    /// A request ended.
    public mutating func ended(_ record: RequestRecord) {
        switch record.outcome {
        case .completed: completed += 1
        case .cancelled, .cutOff: givenUp += 1
        case .failed: failed += 1
        }
        if let wait = record.timeToFirstToken {
            recent.append(wait)
            if recent.count > 100 { recent.removeFirst() }
        }
    }

    /// The line at `seconds`; rates are since the line before.
    public mutating func line(at seconds: Double, inFlight: Int) -> String {
        let rate = Double(tokens - shown.tokens) / max(0.001, seconds - shown.time)
        shown = (seconds, tokens)
        let done = completed + givenUp + failed
        var parts = [
            "\(Text.number(seconds, digits: 0)) s", "\(done)/\(total) done", "\(inFlight) in flight",
            "\(Text.number(rate, digits: 0)) tok/s",
        ]
        if !recent.isEmpty { parts.append("TTFT \(Text.number(Distribution(recent).median, digits: 0)) ms") }
        if givenUp > 0 { parts.append("\(givenUp) given up") }
        parts.append("\(failed) failed")
        return parts.joined(separator: "  ")
    }
}
