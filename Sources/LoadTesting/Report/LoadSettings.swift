import Plots

/// What was asked for, as the report repeats it.
public struct LoadSettings: Sendable {
    /// "http" or "binary".
    public var backend = "http"
    /// Where the load went.
    public var target = ""
    /// Name of the workload.
    public var dataset = "random-ids"
    /// Requests of the workload.
    public var requestCount = 0
    /// Requests per second; nil when all are due at once or at times of their own.
    public var requestRate: Double?
    /// When requests are due, in words, where neither a rate nor "all at once" says it.
    public var arrivals: String?
    /// Shape of the gaps' gamma distribution.
    public var burstiness = 1.0
    /// Requests in flight, at most; nil when none was given.
    public var maxConcurrency: Int?
    /// Part of the requests that are cancelled.
    public var cancellationRate = 0.0
    /// Seed of the workload and its arrivals.
    public var seed: UInt64 = 0
    /// Conversations whose turns the requests are, first turns first; nil where they are none.
    public var conversations: Int?
    /// Bounds for goodput.
    public var serviceLevels: [ServiceLevel] = []
    /// True when requests arrive at times of their own, whatever the server does.
    public var isOpenLoop = false
    /// Prompt and answer tokens of a random workload, and the part of them that the shortest have.
    public var randomLengths: (input: LengthRange, output: LengthRange)?

    /// The defaults.
    public init() {}

    /// The load in a few words.
    public var loadDescription: String {
        let cap = maxConcurrency.map { "at most \($0) in flight" }
        guard isOpenLoop else { return cap ?? "all at once" }
        let rate = requestRate.map { "\(Text.number($0)) req/s" } ?? arrivals ?? "all at once"
        let process = burstiness == 1 ? "" : ", burstiness \(Text.number(burstiness))"
        return ([rate + process] + [cap].compactMap { $0 }).joined(separator: ", ")
    }

    /// The rate as the block shows it.
    var rateText: String { requestRate.map { Text.number($0) } ?? arrivals ?? "inf" }
}
