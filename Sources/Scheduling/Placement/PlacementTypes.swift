/// A request as placement sees it.
public struct PlacementRequest: Sendable, Equatable {
    /// Its number.
    public var id: UInt64
    /// Tokens of the prompt.
    public var promptTokens: Int
    /// Tokens it may generate.
    public var maximumTokens: Int
    /// Hashes of its prompt's leading blocks, the first block first; see `PrefixHash`.
    public var prefix: [UInt64]
    /// Higher goes first.
    public var priority: Int
    /// Time at which waiting ends, in microseconds; nil takes the controller's limit.
    public var waitUntil: UInt64?

    /// A request.
    public init(
        id: UInt64, promptTokens: Int, maximumTokens: Int, prefix: [UInt64] = [], priority: Int = 0,
        waitUntil: UInt64? = nil
    ) {
        self.id = id
        self.promptTokens = promptTokens
        self.maximumTokens = maximumTokens
        self.prefix = prefix
        self.priority = priority
        self.waitUntil = waitUntil
    }
}

/// Where a request runs. Its pages, slot and prefix keys carry these ranks.
public struct Placement: Sendable, Equatable {
    /// Rank that computes the prompt; equal to `decode` when nothing is handed over.
    public let prefill: Int
    /// Rank that holds the request and streams its tokens.
    public let decode: Int
    /// Counts the request's starts; what is reported of an earlier one is ignored.
    public let attempt: Int

    /// A placement.
    public init(prefill: Int, decode: Int, attempt: Int) {
        self.prefill = prefill
        self.decode = decode
        self.attempt = attempt
    }

    /// True when prompt and generation are computed on one rank.
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
public enum PlacementDeferral: Sendable, Hashable, CustomStringConvertible {
    /// No rank of that role is there.
    case noRank(RequestRole)
    /// Ranks of that role are there, and none can call all services it needs: why the first of them cannot.
    case brokenChain(RequestRole, String)
    /// All ranks of that role failed so often in a row that they are left alone for a while.
    case resting(RequestRole)
    /// Every rank of that role is full.
    case allFull(RequestRole)
    /// Others that came first, or matter more, wait.
    case behindOthers

    /// True when something that is needed is gone, so that the wait may be in vain; false when others hold what is needed.
    public var isOutage: Bool {
        switch self {
        case .noRank, .brokenChain: true
        case .resting, .allFull, .behindOthers: false
        }
    }

    /// True when there is only too little room for all who ask.
    public var isShortage: Bool {
        switch self {
        case .allFull, .behindOthers: true
        case .noRank, .brokenChain, .resting: false
        }
    }

    /// One sentence.
    public var description: String {
        switch self {
        case .noRank(let role): "no \(role.instance) instance is available"
        case .brokenChain(_, let reason): reason
        case .resting(let role): "every \(role.instance) instance has failed too often in a row"
        case .allFull(let role): "every \(role.instance) instance is full"
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
    /// A leaving rank holds nothing any more.
    case retired(rank: Int)
}

/// How a rank is chosen among those that have room.
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
    /// How long a request without a deadline of its own waits, in microseconds.
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
    /// Share of the tokens a request may generate that its decode rank sets aside.
    public var expectedGrowth = 0.5
    /// Tokens it sets aside at most for what a request may generate, as `SchedulerLimits.expectedTokens`.
    public var expectedTokens = Int.max
    /// Prefixes remembered for `prefixAffine`.
    public var prefixes = 65_536
    /// How much fuller, as a share of its capacity, a rank with the prefix may be than the emptiest one.
    public var affinitySlack = 0.25
    /// The circuit breaker of each rank.
    public var breaker = CircuitBreaker.Limits()

    /// The defaults.
    public init() {}
}

extension RequestRole {
    var instance: String {
        switch self {
        case .prefillOnly: "prefill"
        case .decodeOnly: "decode"
        case .both: "attention"
        }
    }
}
