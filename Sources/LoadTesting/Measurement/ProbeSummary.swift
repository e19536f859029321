/// Gaps of steady streams: alone, and beside the load.
public struct ProbeSummary: Sendable, Equatable {
    /// Streams that were kept running.
    public let streams: Int
    /// Gaps before the load began, ms.
    public let alone: Distribution
    /// Gaps that ended while the load ran, ms.
    public let underLoad: Distribution
    /// Requests of the streams that failed, as sentences.
    public let failures: [CompletionFailure]

    /// Sums up the requests of `streams` streams, whose times count from the start of the load at `loadStart`, in the
    /// same clock as the records.
    public init(_ records: [RequestRecord], streams: Int, loadStart: UInt64, loadEnd: UInt64) {
        var (before, during): ([Double], [Double]) = ([], [])
        for record in records {
            for (time, gap) in zip(record.outputTimes.dropFirst(), record.gaps) {
                if time < loadStart {
                    before.append(gap)
                } else if time <= loadEnd {
                    during.append(gap)
                }
            }
        }
        self.streams = streams
        alone = Distribution(before)
        underLoad = Distribution(during)
        failures = records.compactMap { record in
            guard case .failed(let failure) = record.outcome else { return nil }
            return failure
        }
    }

    /// The longest gap beside the load over the median gap beside the load.
    public var worstRatio: Double { underLoad.median > 0 ? underLoad.maximum / underLoad.median : 0 }
    /// The longest gap beside the load over the median gap alone.
    public var worstRatioToAlone: Double { alone.median > 0 ? underLoad.maximum / alone.median : 0 }
}
