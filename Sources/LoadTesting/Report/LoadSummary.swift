/// What a run came to. Latencies are of the completed requests.
public struct LoadSummary: Sendable {
    /// A class of failures.
    public struct FailureCount: Sendable, Equatable {
        /// The class.
        public let kind: String
        /// How many.
        public let count: Int
        /// The first one's sentence.
        public let example: String

        /// A class of failures.
        public init(kind: String, count: Int, example: String) {
            self.kind = kind
            self.count = count
            self.example = example
        }
    }

    /// What was asked for.
    public let settings: LoadSettings
    /// Requests whose answers came to their end.
    public let completed: Int
    /// Requests given up after some tokens, as planned.
    public let cancelled: Int
    /// Requests in flight when the run was cut off.
    public let cutOff: Int
    /// Failures by class, most frequent first.
    public let failures: [FailureCount]
    /// Requests of the workload that were never sent because the run was cut off.
    public let unsent: Int
    /// From the first request's sending to the last end, seconds.
    public let duration: Double
    /// Tokens of the completed requests' prompts.
    public let inputTokens: Int
    /// Tokens of the completed requests' answers.
    public let outputTokens: Int
    /// Tokens of requests that did not complete.
    public let wastedTokens: Int
    /// Part of the prompts' tokens that the server found in its cache; nil when it does not say.
    public let cacheHitRate: Double?
    /// Most requests in flight at once.
    public let peakConcurrency: Int
    /// Most output tokens in one second of the run, over all requests.
    public let peakOutputThroughput: Int
    /// End-to-end latency, ms.
    public let latency: Distribution
    /// Time to first token, ms.
    public let timeToFirstToken: Distribution
    /// That of the turns after the first, where requests are turns of conversations; ms.
    public let laterTimeToFirstToken: Distribution?
    /// Time per output token after the first, ms; one sample per request.
    public let timePerOutputToken: Distribution
    /// Gaps between pieces of output, ms; pooled over all requests.
    public let interTokenLatency: Distribution
    /// Time requests of an open loop waited in the client because too many were in flight, ms.
    public let queueTime: Distribution
    /// Completed requests that kept every bound.
    public let goodRequests: Int
    /// Whether the server kept up.
    public let saturation: Saturation
    /// The steady streams that ran beside the load, if any.
    public let probe: ProbeSummary?
    /// What the load generator itself took of one processor, 1 being all of it; nil when nobody looked. Near 1, it is
    /// the load generator that is measured.
    public let clientShare: Double?

    /// Sums up `records` of requests that were sent.
    public init(
        _ records: [RequestRecord], settings: LoadSettings, probe: ProbeSummary? = nil, clientShare: Double? = nil
    ) {
        self.clientShare = clientShare
        let done = records.filter { $0.outcome == .completed }
        self.settings = settings
        self.probe = probe
        completed = done.count
        cancelled = records.filter { $0.outcome == .cancelled }.count
        cutOff = records.filter { $0.outcome == .cutOff }.count
        unsent = max(0, settings.requestCount - records.count)
        failures = Self.count(records)
        duration = Self.seconds(records)
        inputTokens = done.reduce(0) { $0 + $1.inputTokens }
        outputTokens = done.reduce(0) { $0 + $1.outputTokens }
        wastedTokens = records.reduce(0) { $0 + $1.outputTokens } - outputTokens
        let told = done.filter { $0.cachedTokens != nil }
        let prompts = told.reduce(0) { $0 + $1.inputTokens }
        cacheHitRate =
            prompts == 0 ? nil : Double(told.reduce(0) { $0 + ($1.cachedTokens ?? 0) }) / Double(prompts)
        peakConcurrency = InFlightSeries(records, fromSending: true).peak
        peakOutputThroughput = Self.peakTokens(records)
        latency = Distribution(done.map(\.latency))
        timeToFirstToken = Distribution(done.compactMap(\.timeToFirstToken))
        laterTimeToFirstToken = settings.conversations.map { count in
            Distribution(done.filter { $0.index >= count }.compactMap(\.timeToFirstToken))
        }
        timePerOutputToken = Distribution(done.compactMap(\.timePerOutputToken))
        interTokenLatency = Distribution(done.flatMap(\.gaps))
        queueTime = Distribution(settings.isOpenLoop ? records.map(\.queueTime) : [])
        goodRequests = done.filter { record in settings.serviceLevels.allSatisfy { $0.isKept(by: record) } }.count
        saturation = settings.isOpenLoop ? .judge(records) : .notJudged("closed loop")
    }

    /// Requests that failed.
    public var failed: Int { failures.reduce(0) { $0 + $1.count } }
    /// Completed requests per second.
    public var requestThroughput: Double { perSecond(Double(completed)) }
    /// Prompt tokens per second.
    public var inputThroughput: Double { perSecond(Double(inputTokens)) }
    /// Answer tokens per second.
    public var outputThroughput: Double { perSecond(Double(outputTokens)) }
    /// Mean of completed requests in flight: the sum of their latencies over the duration.
    public var concurrency: Double { perSecond(latency.mean * Double(latency.count) / 1000) }
    /// Requests per second that kept every bound.
    public var goodput: Double { perSecond(Double(goodRequests)) }

    private func perSecond(_ value: Double) -> Double { duration > 0 ? value / duration : 0 }

    private static func seconds(_ records: [RequestRecord]) -> Double {
        guard let first = records.map(\.sent).min(), let last = records.map(\.ended).max(), last > first else {
            return 0
        }
        return Double(last - first) / 1e6
    }

    private static func count(_ records: [RequestRecord]) -> [FailureCount] {
        var counts: [String: (count: Int, example: String)] = [:]
        for record in records {
            guard case .failed(let failure) = record.outcome else { continue }
            counts[failure.kind, default: (0, failure.message)].count += 1
        }
        return counts.map { FailureCount(kind: $0.key, count: $0.value.count, example: $0.value.example) }
            .sorted { ($1.count, $0.kind) < ($0.count, $1.kind) }
    }

    private static func peakTokens(_ records: [RequestRecord]) -> Int {
        var seconds: [UInt64: Int] = [:]
        for record in records {
            for (time, count) in zip(record.outputTimes, record.outputCounts) {
                seconds[time / 1_000_000, default: 0] += count
            }
        }
        return seconds.values.max() ?? 0
    }
}
