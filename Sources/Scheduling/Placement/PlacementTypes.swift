import Serving

/// Where a request runs. Its pages, slot and prefix keys carry these numbers.
public struct Placement: Sendable, Equatable {
    /// Instance that computes the prompt; equal to `decode` when nothing is handed over.
    public let prefill: Int
    /// Instance that holds the request and streams its tokens.
    public let decode: Int
    /// Counts the request's starts; what is reported of an earlier one is ignored.
    public let attempt: Int

    /// A placement.
    public init(prefill: Int, decode: Int, attempt: Int) {
        self.prefill = prefill
        self.decode = decode
        self.attempt = attempt
    }

    /// True when prompt and generation are computed on one instance.
    public var isColocated: Bool { prefill == decode }
}

/// The controller's answer to a request.
public enum PlacementAnswer: Sendable, Equatable {
    /// It runs there.
    case admitted(Placement)
    /// It waits; `poll` places it, or says that its time is over.
    case deferred(PlacementDeferral)
    /// It is not here.
    case rejected(PlacementRefusal)
}

/// Why a request waits.
public enum PlacementDeferral: Error, Sendable, Hashable, CustomStringConvertible {
    /// No instance that takes the part is there.
    case noInstance(Part)
    /// Some are there, and none can call all services it needs: why the first of them cannot.
    case brokenChain(Part, String)
    /// All that take the part failed so often in a row that they are left alone for a while.
    case resting(Part)
    /// Every one that takes the part is full.
    case allFull(Part)
    /// Others that came first, or matter more, wait.
    case behindOthers

    /// The part for which something that is needed is gone, so that the wait may be in vain; nil when others hold what is
    /// needed.
    public var outage: Part? {
        switch self {
        case .noInstance(let part), .brokenChain(let part, _): part
        case .resting, .allFull, .behindOthers: nil
        }
    }

    /// True when something that is needed is gone.
    public var isOutage: Bool { outage != nil }

    /// True when there is only too little room for all who ask.
    public var isShortage: Bool {
        switch self {
        case .allFull, .behindOthers: true
        case .noInstance, .brokenChain, .resting: false
        }
    }

    /// One sentence.
    public var description: String {
        switch self {
        case .noInstance(let part): "no \(part.instance) instance is available"
        case .brokenChain(_, let reason): reason
        case .resting(let part): "every \(part.instance) instance has failed too often in a row"
        case .allFull(let part): "every \(part.instance) instance is full"
        case .behindOthers: "requests ahead of it wait for room"
        }
    }
}

/// Why a request, or a plan, is turned away.
public enum PlacementRefusal: Error, Sendable, Equatable, CustomStringConvertible {
    /// The waiting queue is at its limit.
    case queueFull(limit: Int)
    /// The waiting queue is at its limit, for something that is needed is gone.
    case outage(PlacementDeferral)
    /// No instance could ever hold the request.
    case neverFits(tokens: Int, limit: Int)
    /// A request of that number is here.
    case duplicate(UInt64)
    /// The token counts make no sense.
    case invalid(String)

    /// One sentence with the limit.
    public var description: String {
        switch self {
        case .queueFull(let limit): "the waiting queue is at its limit of \(limit) requests"
        case .outage(let deferral): deferral.description
        case .neverFits(let tokens, let limit):
            "prompt and max_tokens together are \(tokens) tokens, the largest instance holds \(limit)"
        case .duplicate(let id): "request \(id) is here already"
        case .invalid(let sentence): sentence
        }
    }
}

/// What the gateway has to do.
public enum PlacementAction: Sendable, Equatable {
    /// Open the request's stream.
    case place(id: UInt64, Placement)
    /// Its stream broke through no fault of its own. It waits at the front, and is placed again with the tokens so far.
    case restart(id: UInt64, because: String)
    /// It waited too long.
    case expired(id: UInt64, PlacementDeferral)
    /// It broke too often; give it up.
    case failed(id: UInt64, because: String)
    /// It broke, and so many did that it is not placed again; give it up.
    case overBudget(id: UInt64, because: String)
    /// A leaving instance holds nothing any more.
    case retired(instance: Int)
}

/// How an instance is chosen among those that have room.
public enum PlacementPolicy: String, Sendable, CaseIterable {
    /// One after the other.
    case roundRobin = "round-robin"
    /// The one with the smallest share of its requests and tokens taken.
    case leastLoaded = "least-loaded"
    /// The one that last computed the longest common prefix, unless it is much fuller than the others.
    case prefixAffine = "prefix-affine"
}

/// Limits of the controller.
public struct PlacementLimits: Sendable, Equatable {
    /// Requests that wait; one more is rejected.
    public var waiting = 128
    /// How long a request waits, in microseconds.
    public var waitMicroseconds: UInt64 = 30_000_000
    /// How long a request of which nothing was answered yet waits while what it needs is gone, counted from when that was
    /// noticed: long enough for a process to be started again, short enough for a client to go elsewhere.
    public var outageMicroseconds: UInt64 = 3_000_000
    /// How long one that has begun to answer does: its client cannot ask anew without losing what it has.
    public var begunOutageMicroseconds: UInt64 = 15_000_000
    /// How often a request that does not fit may be passed over by others behind it.
    public var passesOver = 16
    /// How often one request is started again.
    public var restarts = 3
    /// How often all requests together are.
    public var retries = RetryBudget.Limits()
    /// Share of the tokens a request may generate that its decode instance sets aside.
    public var expectedGrowth = 0.5
    /// Tokens it sets aside at most for what a request may generate, as `SchedulerLimits.expectedTokens`.
    public var expectedTokens = Int.max
    /// Prefixes remembered for `prefixAffine`.
    public var prefixes = 65_536
    /// How much fuller, as a share of its capacity, an instance with the prefix may be than the emptiest one.
    public var affinitySlack = 0.25
    /// The circuit breaker of each instance.
    public var breaker = CircuitBreaker.Limits()

    /// The defaults.
    public init() {}
}

extension Part {
    var instance: String {
        switch self {
        case .prefill: "prefill"
        case .decode: "decode"
        case .both: "attention"
        }
    }
}
