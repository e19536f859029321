import LoadTesting
import Scheduling
import Serving

/// A slice that takes requests, or a part of each: its ranks and what its steps cost.
public struct ServingSlice: Sendable {
    /// Its name in reports and timelines.
    public var name: String
    /// Which part of a request it computes.
    public var part: Part
    /// Its ranks, empty.
    public var group: Ranks
    /// How long its steps take.
    public var costs: any StepCosting
    /// How the states of each rank leave it; only prefill slices have a link.
    public var link: TransferLink?

    /// A slice.
    public init(
        name: String, part: Part = .both, group: Ranks, costs: any StepCosting, link: TransferLink? = nil
    ) {
        self.name = name
        self.part = part
        self.group = group
        self.costs = costs
        self.link = link
    }
}

/// The load of a simulated run: what `ironling load` would send.
public struct ServingLoad: Sendable {
    /// Prompts and answers; only their lengths matter.
    public var workload: any Workload
    /// When each request is due, microseconds from the start.
    public var due: [UInt64]
    /// Requests in flight, at most.
    public var limit: ConcurrencyLimit
    /// Which requests are given up midway.
    public var cancellation: CancellationPlan
    /// Nanoseconds the client needs to put one request on its way: requests that are due together leave one after
    /// another.
    public var sendNanoseconds: UInt64

    /// A load.
    public init(
        workload: any Workload, due: [UInt64], limit: ConcurrencyLimit,
        cancellation: CancellationPlan = CancellationPlan(rate: 0, seed: 0), sendNanoseconds: UInt64 = 0
    ) {
        self.workload = workload
        self.due = due
        self.limit = limit
        self.cancellation = cancellation
        self.sendNanoseconds = sendNanoseconds
    }
}

/// Everything a simulated run depends on.
public struct ServingScenario: Sendable {
    /// The slices, in the order of their ranks in the placement's ledger.
    public var slices: [ServingSlice]
    /// The load.
    public var load: ServingLoad
    /// How the gateway chooses among slices.
    public var policy: PlacementPolicy
    /// The gateway's limits.
    public var placement: PlacementLimits
    /// Spans that the timeline keeps, at most; 0 keeps none.
    public var timelineLimit: Int

    /// A scenario.
    public init(
        slices: [ServingSlice], load: ServingLoad, policy: PlacementPolicy = .leastLoaded,
        placement: PlacementLimits = PlacementLimits(), timelineLimit: Int = 0
    ) {
        self.slices = slices
        self.load = load
        self.policy = policy
        self.placement = placement
        self.timelineLimit = timelineLimit
    }
}
