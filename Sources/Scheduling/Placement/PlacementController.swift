/// The single controller of all data-parallel ranks: it decides whether a request may enter and where it runs, from one
/// ledger of what it has placed. A value: events in, actions out, time as an argument.
///
/// A request takes a slot and tokens on its decode rank, for prompt and expected growth, until it is over, and on its
/// prefill rank, for the prompt, until its first token is there. Ranks with both roles compute both parts themselves.
/// What does not fit waits; what waits blocks nobody whom another rank can take.
public struct PlacementController: Sendable {
    struct Request: Sendable {
        let spec: PlacementRequest
        let sequence: UInt64
        var expires: UInt64
        private(set) var deferral = PlacementDeferral.behindOthers
        /// Until when it waits for something that is gone.
        private(set) var outageEnds: UInt64?
        /// True once its client has something of the answer.
        var hasBegun = false
        var placement: Placement?
        var isPrefilling = false
        var restarts = 0
        var avoided: Int?
        var passedOver = 0

        func precedes(_ other: Request) -> Bool {
            if spec.priority != other.spec.priority { return spec.priority > other.spec.priority }
            if (restarts > 0) != (other.restarts > 0) { return restarts > 0 }
            return sequence < other.sequence
        }

        /// When its wait is over, whatever it waits for.
        var waitEnds: UInt64 { min(expires, outageEnds ?? .max) }

        /// `ends` is nil unless the reason is an outage; that of an outage already waited for stands.
        mutating func wait(for reason: PlacementDeferral, outageEnds ends: UInt64?) {
            deferral = reason
            outageEnds = ends.map { outageEnds ?? $0 }
        }
    }

    /// The limits in force.
    public let limits: PlacementLimits
    /// How ranks are chosen.
    public let policy: PlacementPolicy
    var ranks: [Int: Rank] = [:]
    var requests: [UInt64: Request] = [:]
    var waiting: [UInt64] = []
    var pending: [PlacementAction] = []
    var prefixes: PrefixTable
    var retries: RetryBudget
    private var nextSequence: UInt64 = 0
    private var lastPoll: UInt64 = 0
    var clock: UInt64 = 0
    /// When a role was first found to have nobody to place on.
    var outages: [RequestRole: UInt64] = [:]

    /// A controller without ranks.
    public init(limits: PlacementLimits = PlacementLimits(), policy: PlacementPolicy = .leastLoaded) {
        self.limits = limits
        self.policy = policy
        prefixes = PrefixTable(limit: limits.prefixes)
        retries = RetryBudget(limits: limits.retries)
    }

    /// Requests that wait.
    public var waitingCount: Int { waiting.count }
    /// Requests that are placed.
    public var placedCount: Int { requests.count - waiting.count }
    /// Prefixes remembered.
    public var prefixCount: Int { prefixes.count }
    /// Requests that were given up because the budget of retries was spent.
    public var retriesRefused: UInt64 { retries.refusals }
    /// Requests that could be placed again now.
    public func retriesLeft(now: UInt64) -> Int { retries.remaining(now: now, burst: largestHolding) }
    /// Where a request runs; nil while it waits.
    public func placement(of id: UInt64) -> Placement? { requests[id]?.placement }

    /// When `poll` has something to do at the earliest, though nothing else happens; always after the last `poll`.
    public var nextWake: UInt64? {
        let expiries = waiting.compactMap { requests[$0]?.waitEnds }
        let probes = waiting.isEmpty ? [] : ranks.values.compactMap(\.breaker.opensUntil)
        return (expiries + probes).filter { $0 > lastPoll }.min()
    }

    /// Takes a request in, or says why not. Ask `poll` afterwards for what else may have changed.
    public mutating func submit(_ spec: PlacementRequest, now: UInt64) -> PlacementAnswer {
        if let refusal = refusal(of: spec) { return .rejected(refusal) }
        requests[spec.id] = Request(
            spec: spec, sequence: nextSequence, expires: spec.waitUntil ?? later(now, limits.waitMicroseconds))
        nextSequence += 1
        enqueue(spec.id)
        placeWaiting(now: now)
        if let placement = requests[spec.id]?.placement {
            pending.removeAll { $0 == .place(id: spec.id, placement) }
            return .admitted(placement)
        }
        guard waiting.count <= limits.waiting, let request = requests[spec.id] else {
            let deferral = requests[spec.id]?.deferral
            forget(spec.id)
            if let deferral, deferral.isOutage { return .rejected(.outage(deferral)) }
            return .rejected(.queueFull(limit: limits.waiting))
        }
        return .deferred(request.deferral)
    }

    /// What there is to do now. Call it after every other call, and at `nextWake`.
    public mutating func poll(now: UInt64) -> [PlacementAction] {
        lastPoll = now
        expireWaiting(now: now)
        placeWaiting(now: now)
        // Some may only now have learned that what they need has been gone for long.
        expireWaiting(now: now)
        retireEmpty()
        defer { pending.removeAll() }
        return pending
    }

    private mutating func expireWaiting(now: UInt64) {
        for id in waiting {
            guard let request = requests[id], request.waitEnds <= now else { continue }
            forget(id)
            pending.append(.expired(id: id, request.deferral))
        }
    }

    /// A request's first token is there: its prefill rank has no part in it any more.
    public mutating func firstToken(id: UInt64, attempt: Int) {
        guard let request = requests[id], let placement = request.placement, placement.attempt == attempt,
            request.isPrefilling
        else { return }
        requests[id]?.isPrefilling = false
        requests[id]?.hasBegun = true
        ranks[placement.prefill]?.breaker.succeeded()
        guard !placement.isColocated else { return }
        ranks[placement.decode]?.breaker.succeeded()
        charge(placement.prefill, -1, tokens: -pageTokens(request.spec.promptTokens))
    }

    /// A request is over, finished or given up by its client.
    public mutating func ended(id: UInt64) { forget(id) }

    /// A request's stream broke by the fault of `rank`, if that is known. It waits at the front and is placed again, on
    /// other ranks than that one and `avoided` if there are any, unless it was too often or the budget of retries is spent.
    /// A report of an earlier attempt is ignored.
    public mutating func broke(
        id: UInt64, attempt: Int, rank: Int?, avoiding avoided: Int? = nil, because: String, now: UInt64
    ) {
        guard requests[id]?.placement?.attempt == attempt else { return }
        if let rank { ranks[rank]?.breaker.failed(now: now) }
        restart(id, avoiding: rank ?? avoided, because: because, now: now)
    }

    mutating func restart(_ id: UInt64, avoiding rank: Int?, because: String, now: UInt64) {
        guard var request = requests[id], request.placement != nil else { return }
        discharge(request)
        withdraw(request)
        pending.removeAll { if case .place(id: id, _) = $0 { true } else { false } }
        guard request.restarts < limits.restarts else {
            requests[id] = nil
            pending.append(.failed(id: id, because: because))
            return
        }
        guard retries.spend(now: now, burst: largestHolding) else {
            requests[id] = nil
            pending.append(.overBudget(id: id, because: because))
            return
        }
        request.placement = nil
        request.restarts += 1
        request.avoided = rank
        request.passedOver = 0
        request.wait(for: .behindOthers, outageEnds: nil)
        request.expires = later(now, limits.waitMicroseconds)
        requests[id] = request
        enqueue(id)
        pending.append(.restart(id: id, because: because))
    }

    private func refusal(of spec: PlacementRequest) -> PlacementRefusal? {
        guard requests[spec.id] == nil else { return .duplicate(spec.id) }
        guard spec.promptTokens > 0, spec.maximumTokens > 0 else {
            return .invalid("a request needs prompt tokens and max_tokens above 0")
        }
        let (total, overflow) = spec.promptTokens.addingReportingOverflow(spec.maximumTokens)
        guard total <= Int.max - 64, !overflow else {
            return .neverFits(tokens: .max, limit: largest(.decodeOnly) ?? 0)
        }
        for (role, tokens) in [(RequestRole.decodeOnly, total), (.prefillOnly, spec.promptTokens)] {
            guard let limit = largest(role), pageTokens(tokens) > limit else { continue }
            return .neverFits(tokens: tokens, limit: limit)
        }
        return nil
    }

    private mutating func enqueue(_ id: UInt64) {
        guard let request = requests[id] else { return }
        let place = waiting.firstIndex { requests[$0].map(request.precedes) ?? false }
        waiting.insert(id, at: place ?? waiting.endIndex)
    }

    private mutating func forget(_ id: UInt64) {
        guard let request = requests.removeValue(forKey: id) else { return }
        waiting.removeAll { $0 == id }
        pending.removeAll { if case .place(id: id, _) = $0 { true } else { false } }
        withdraw(request)
        discharge(request)
    }

    /// A request that ends before its first token says nothing about the ranks it was on. The one at fault has been told
    /// before, and its breaker is no longer half open.
    private mutating func withdraw(_ request: Request) {
        guard request.isPrefilling, let placement = request.placement else { return }
        for rank in [placement.prefill, placement.decode] { ranks[rank]?.breaker.withdrawn() }
    }

    mutating func discharge(_ request: Request) {
        guard let placement = request.placement else { return }
        charge(placement.decode, -1, tokens: -decodeTokens(request.spec))
        guard request.isPrefilling, !placement.isColocated else { return }
        charge(placement.prefill, -1, tokens: -pageTokens(request.spec.promptTokens))
    }

    mutating func charge(_ rank: Int, _ requests: Int, tokens: Int) {
        ranks[rank]?.placedRequests += requests
        ranks[rank]?.placedTokens += tokens
    }

    func decodeTokens(_ spec: PlacementRequest) -> Int {
        let growth = Double(spec.maximumTokens) * min(1, max(0, limits.expectedGrowth))
        let expected = min(spec.maximumTokens, Int(growth.rounded(.up)), limits.expectedTokens)
        return pageTokens(spec.promptTokens + expected)
    }

    func pageTokens(_ tokens: Int) -> Int { (tokens + 63) / 64 * 64 }

    func later(_ now: UInt64, _ microseconds: UInt64) -> UInt64 {
        let (time, overflow) = now.addingReportingOverflow(microseconds)
        return overflow ? .max : time
    }
}
