/// What an instance says of itself when it joins.
public struct RankDescription: Sendable, Equatable {
    /// Its data-parallel rank.
    public var id: Int
    /// Name of the process.
    public var name: String
    /// What it computes.
    public var role: RequestRole
    /// Requests it holds at once.
    public var requests: Int
    /// Tokens of KV it holds.
    public var tokens: Int
    /// Tokens of KV one request may take of them.
    public var requestTokens: Int
    /// Grows with every restart of the process.
    public var generation: UInt64

    /// A rank; one request may take all of its tokens, unless `requestTokens` says less.
    public init(
        id: Int, name: String, role: RequestRole, requests: Int, tokens: Int, requestTokens: Int = .max,
        generation: UInt64
    ) {
        self.requestTokens = min(tokens, requestTokens)
        self.id = id
        self.name = name
        self.role = role
        self.requests = requests
        self.tokens = tokens
        self.generation = generation
    }
}

/// How full the controller takes a rank to be.
public struct RankLoad: Sendable, Equatable {
    /// What it said of itself.
    public let description: RankDescription
    /// Requests placed on it.
    public let requests: Int
    /// Tokens set aside for them.
    public let tokens: Int
    /// False while it is gone or leaving.
    public let isServing: Bool
    /// Which service it needs and cannot call, and why; nil when it can call all.
    public let fault: String?
    /// Its circuit breaker.
    public let breaker: CircuitBreaker.State
}

extension PlacementController {
    struct Rank: Sendable {
        var description: RankDescription
        var breaker: CircuitBreaker
        var isPresent = true
        var isLeaving = false
        /// Which service it needs and cannot call, and why.
        var fault: String?
        var placedRequests = 0
        var placedTokens = 0
        var withheldRequests = 0
        var withheldTokens = 0
        var lastPlaced: UInt64 = 0

        var id: Int { description.id }
        var role: RequestRole { description.role }

        func serves(_ part: RequestRole) -> Bool { isPresent && !isLeaving && (role == part || role == .both) }

        func fits(tokens: Int) -> Bool {
            placedRequests + withheldRequests < description.requests
                && placedTokens + withheldTokens + tokens <= description.tokens
        }

        /// Share that is taken, of requests or tokens, whichever is more.
        var share: Double {
            max(
                Double(placedRequests + withheldRequests) / Double(max(1, description.requests)),
                Double(placedTokens + withheldTokens) / Double(max(1, description.tokens)))
        }

        func isEmptier(than other: Rank) -> Bool {
            (share, lastPlaced, id) < (other.share, other.lastPlaced, other.id)
        }
    }

    /// All ranks, in order.
    public var loads: [RankLoad] {
        ranks.values.sorted { $0.id < $1.id }.map {
            RankLoad(
                description: $0.description, requests: $0.placedRequests, tokens: $0.placedTokens,
                isServing: $0.isPresent && !$0.isLeaving, fault: $0.fault, breaker: $0.breaker.state)
        }
    }

    /// A rank is there, or there again. A newer generation means that it was restarted and holds nothing of what was
    /// placed on it. An older one is a late note: false, and nothing changes.
    public mutating func join(_ description: RankDescription, now: UInt64) -> Bool {
        guard description.requests > 0, description.tokens > 0 else { return false }
        guard var rank = ranks[description.id] else {
            ranks[description.id] = Rank(description: description, breaker: CircuitBreaker(limits: limits.breaker))
            outages.removeAll()
            return true
        }
        guard description.generation >= rank.description.generation else { return false }
        if description.generation > rank.description.generation {
            restartVictims(of: description.id, because: "\(description.name) was restarted", now: now)
            prefixes.forget(rank: description.id)
            guard let cleared = ranks[description.id] else { return false }
            rank = cleared
            rank.withheldRequests = 0
            rank.withheldTokens = 0
        }
        rank.description = description
        if !rank.isPresent { outages.removeAll() }
        rank.isPresent = true
        rank.isLeaving = false
        rank.fault = nil
        ranks[description.id] = rank
        return true
    }

    /// Which service a rank needs and cannot call, and why; nil when it can call all. It gets no further request meanwhile;
    /// what runs on it is left there.
    public mutating func chain(rank: Int, generation: UInt64, fault: String?) {
        guard let known = ranks[rank], known.description.generation == generation, known.fault != fault else { return }
        ranks[rank]?.fault = fault
        if fault == nil { outages.removeAll() }
    }

    /// Why no request, however small, could be placed now, but for circuit breakers; nil when one could.
    public var outage: PlacementDeferral? {
        let well = ranks.values.filter { $0.isPresent && !$0.isLeaving && $0.fault == nil }
        if well.contains(where: { $0.role == .both }) { return nil }
        return outage(of: .decodeOnly) ?? outage(of: .prefillOnly)
    }

    func outage(of role: RequestRole) -> PlacementDeferral? {
        let serving = ranks.values.filter { $0.serves(role) }
        guard !serving.contains(where: { $0.fault == nil }) else { return nil }
        guard let first = serving.min(by: { $0.id < $1.id }), let fault = first.fault else { return .noRank(role) }
        return .brokenChain(role, fault)
    }

    /// A rank takes no more requests; `retired` says when it holds none.
    public mutating func leave(rank: Int) { ranks[rank]?.isLeaving = true }

    /// A rank is gone: its requests start again elsewhere. A report of an earlier generation is ignored.
    public mutating func lost(rank: Int, generation: UInt64, because: String, now: UInt64) {
        guard let known = ranks[rank], known.isPresent, known.description.generation == generation else { return }
        ranks[rank]?.isPresent = false
        ranks[rank]?.breaker.failed(now: now)
        restartVictims(of: rank, because: because, now: now)
        prefixes.forget(rank: rank)
        if known.isLeaving { ranks[rank] = nil }
    }

    /// What a rank holds beside the requests placed on it, such as memory in quarantine: it counts as taken.
    public mutating func withhold(rank: Int, generation: UInt64, requests: Int, tokens: Int) {
        guard ranks[rank]?.description.generation == generation else { return }
        ranks[rank]?.withheldRequests = max(0, requests)
        ranks[rank]?.withheldTokens = max(0, tokens)
    }

    /// Tokens a request may take of the rank that serves `part` and gives most; nil when none is known.
    func largest(_ part: RequestRole) -> Int? {
        ranks.values.filter { $0.role == part || $0.role == .both }.map(\.description.requestTokens).max()
    }

    /// Tokens of prompt and answer that one request may have on the largest rank that decodes; nil when none is known.
    public var largestRequest: Int? { largest(.decodeOnly) }

    /// Requests the largest rank holds: as many start again when it dies.
    var largestHolding: Int { ranks.values.map(\.description.requests).max() ?? 0 }

    mutating func retireEmpty() {
        for rank in ranks.values.filter({ $0.isLeaving && $0.placedRequests == 0 }).map(\.id).sorted() {
            ranks[rank] = nil
            prefixes.forget(rank: rank)
            pending.append(.retired(rank: rank))
        }
    }

    /// A decode rank takes all its requests with it, a prefill rank those whose prompt was not through.
    private mutating func restartVictims(of rank: Int, because: String, now: UInt64) {
        let victims = requests.filter { _, request in
            guard let placement = request.placement else { return false }
            return placement.decode == rank || (request.isPrefilling && placement.prefill == rank)
        }
        for id in victims.values.sorted(by: { $0.sequence < $1.sequence }).map(\.spec.id) {
            restart(id, avoiding: rank, because: because, now: now)
        }
    }
}
