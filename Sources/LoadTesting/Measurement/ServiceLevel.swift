import Plots

/// A bound that a request must keep to count for goodput, such as `ttft:200`.
public struct ServiceLevel: Sendable, Equatable, CustomStringConvertible {
    /// What is bounded.
    public enum Metric: String, Sendable, CaseIterable {
        /// Time to first token.
        case ttft
        /// Time per output token after the first.
        case tpot
        /// End-to-end latency.
        case e2el
    }

    /// What is bounded.
    public var metric: Metric
    /// The bound.
    public var milliseconds: Double

    /// A bound.
    public init(_ metric: Metric, milliseconds: Double) {
        self.metric = metric
        self.milliseconds = milliseconds
    }

    /// Parses `ttft:200 tpot:50`; commas separate as well as spaces.
    ///
    /// - Throws: `LoadError` that names what is no service level.
    public static func list(_ text: String) throws(LoadError) -> [ServiceLevel] {
        var levels: [ServiceLevel] = []
        for part in text.split(whereSeparator: { $0 == " " || $0 == "," }) {
            let pair = part.split(separator: ":", omittingEmptySubsequences: false)
            let name = pair.first == "e2e" ? "e2el" : pair.first.map(String.init) ?? ""
            guard pair.count == 2, let metric = Metric(rawValue: name), let bound = Double(pair[1]),
                bound > 0, bound.isFinite
            else {
                throw LoadError("a service level is ttft:MS, tpot:MS or e2el:MS, not \"\(part)\"")
            }
            guard !levels.contains(where: { $0.metric == metric }) else {
                throw LoadError("\(metric) is bounded twice")
            }
            levels.append(ServiceLevel(metric, milliseconds: bound))
        }
        return levels
    }

    /// Whether `record`, which was completed, keeps the bound. An answer of one token has no time per output token and
    /// keeps it.
    public func isKept(by record: RequestRecord) -> Bool {
        switch metric {
        case .ttft: record.timeToFirstToken.map { $0 <= milliseconds } ?? false
        case .tpot: record.timePerOutputToken.map { $0 <= milliseconds } ?? true
        case .e2el: record.latency <= milliseconds
        }
    }

    /// As it is written on the command line.
    public var description: String { "\(metric):\(Text.number(milliseconds))" }
}
