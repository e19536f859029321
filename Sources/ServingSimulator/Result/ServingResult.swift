import LoadTesting

/// How a run stands.
public struct ServingProgress: Sendable, Equatable {
    /// Simulated nanoseconds.
    public internal(set) var nanoseconds: UInt64 = 0
    /// Requests of the load.
    public internal(set) var total = 0
    /// Requests that ended, in whatever way.
    public internal(set) var ended = 0
    /// Requests in flight.
    public internal(set) var inFlight = 0
    /// Tokens that were streamed.
    public internal(set) var tokens = 0
}

/// How much work a run was, counted: it grows with the tokens and with nothing else.
public struct OperationCounts: Sendable, Equatable {
    /// Points in time at which something happened.
    public internal(set) var events = 0
    /// Times a slice was asked for its next step.
    public internal(set) var plans = 0
    /// Steps.
    public internal(set) var steps = 0
    /// Requests' parts of steps.
    public internal(set) var entries = 0
    /// Requests, or parts of requests, handed to a slice.
    public internal(set) var submissions = 0

    /// All of them.
    public var total: Int { events + plans + steps + entries + submissions }
}

/// What a run came to.
public struct ServingResult: Sendable {
    /// Every request as a client would have measured it, by its place in the workload.
    public let records: [RequestRecord]
    /// What each slice did.
    public let slices: [SliceStatistics]
    /// Steps and requests over time, as far as they were kept.
    public let timeline: ServingTimeline
    /// How much work the run was.
    public let operations: OperationCounts
    /// Simulated time, nanoseconds.
    public let nanoseconds: UInt64
}
