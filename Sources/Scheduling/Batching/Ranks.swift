import Serving
import StatePools

/// One step of all ranks.
public struct Step: Sendable {
    /// What is copied before anything is computed, in this order.
    public let copies: [StateCopy]
    /// What each rank computes; some may have nothing to do.
    public let ranks: [[StepEntry]]

    /// True when no rank has anything to compute.
    public var isEmpty: Bool { ranks.allSatisfy(\.isEmpty) }
    /// What all ranks compute, rank by rank.
    public var entries: [StepEntry] { ranks.count == 1 ? ranks[0] : ranks.flatMap { $0 } }
}

/// The data-parallel attention ranks of one slice as a value: one SPMD step spans all of them, so they begin and end
/// every step together, each with the requests and the memory it has.
///
/// A request belongs to one rank from the moment it comes, as it must: its pages and its slot mean nothing elsewhere. It
/// goes where the smaller share of slots and tokens is taken, what waits there included; ties go to the rank that was
/// chosen longest ago. That is `PlacementController`'s least-loaded rule, one level below it.
public struct Ranks: Sendable {
    /// The limits of every rank.
    public let limits: SchedulerLimits
    /// The ranks' schedulers, with the pools of each.
    public private(set) var schedulers: [Scheduler]
    /// Data-parallel rank of the first scheduler.
    public let firstRank: Int
    private var lastChosen: [UInt64]
    private var clock: UInt64 = 0

    /// `ranks` ranks with pools of `slotCount` recurrent slots and `pageCount` pages each, padding not counted.
    public init(limits: SchedulerLimits, ranks: Int = 1, slotCount: Int, pageCount: Int, firstRank: Int = 0) {
        self.limits = limits
        self.firstRank = firstRank
        schedulers = (0..<max(1, ranks)).map { rank in
            Scheduler(
                limits: limits,
                pools: StatePools(
                    slotCount: slotCount + limits.snapshots, pageCount: pageCount, dpRank: firstRank + rank))
        }
        lastChosen = Array(repeating: 0, count: max(1, ranks))
    }

    /// Ranks that share the steps.
    public var rankCount: Int { schedulers.count }
    /// Recurrent slots of all ranks that requests may have.
    public var slotCount: Int { schedulers.reduce(0) { $0 + $1.requestSlots } }
    /// KV pages of all ranks.
    public var pageCount: Int { schedulers.reduce(0) { $0 + $1.pools.pageCount } }
    /// Requests that wait for memory.
    public var waitingCount: Int { schedulers.reduce(0) { $0 + $1.waitingCount } }
    /// Requests that hold memory.
    public var runningCount: Int { schedulers.reduce(0) { $0 + $1.runningCount } }
    /// True when a request is here, whatever it waits for.
    public var hasWork: Bool { schedulers.contains(where: \.hasWork) }
    /// Time at which the next waiting request expires.
    public var nextExpiry: UInt64? { schedulers.compactMap(\.nextExpiry).min() }
    /// How full all ranks together are.
    public var load: SchedulerLoad { schedulers.dropFirst().reduce(schedulers[0].load) { $0 + $1.load } }
    /// What they hold together, and what of it is in quarantine.
    public var capacity: Capacity {
        let (load, page) = (load, schedulers[0].pools.pageTokens)
        return Capacity(
            requests: slotCount, tokens: pageCount * page, requestTokens: schedulers[0].pools.pageCount * page,
            quarantinedRequests: load.slots[.quarantined], quarantinedTokens: load.pages[.quarantined] * page)
    }
    /// The rank a request belongs to, counted from `firstRank`; nil when it is not here.
    public func rank(of id: UInt64) -> Int? { home(of: id).map { firstRank + $0 } }
    /// A request that is here, with the tokens that are known.
    public func request(_ id: UInt64) -> Request? { home(of: id).flatMap { schedulers[$0].request(id) } }

    /// Takes a request in on one rank, or says why not. `now` is in microseconds.
    public mutating func submit(_ request: Request, now: UInt64) -> Admission {
        guard home(of: request.id) == nil else { return .rejected(.duplicate(request.id)) }
        let rank = emptiest
        let answer = schedulers[rank].submit(request, now: now)
        if case .rejected = answer { return answer }
        clock += 1
        lastChosen[rank] = clock
        assert(home(of: request.id) == rank, "a request is where it was taken in")
        return answer
    }

    /// Forgets a request. What a step or transfer still reaches goes into quarantine until that is over.
    @discardableResult
    public mutating func remove(id: UInt64) -> ReleaseOutcome? {
        home(of: id).flatMap { schedulers[$0].remove(id: id) }
    }

    /// The id of a token that became known. False when the request is gone.
    public mutating func append(_ token: UInt32, to id: UInt64) -> Bool {
        home(of: id).map { schedulers[$0].append(token, to: id) } ?? false
    }

    /// Plans the next step of all ranks. Call `complete` or `abandon` with it, whatever happens.
    public mutating func planStep(now: UInt64) -> Step {
        for rank in schedulers.indices { schedulers[rank].prepareStep(now: now) }
        let kind = limits.stepPolicy.kind(hasPrompts: schedulers.contains(where: \.hasPreparedPrompts))
        let ranks = schedulers.indices.map { schedulers[$0].planPrepared(kind) }
        let isEmpty = ranks.allSatisfy(\.isEmpty)
        return Step(copies: isEmpty ? [] : schedulers.indices.flatMap { schedulers[$0].takeCopies() }, ranks: ranks)
    }

    /// Records that a planned step was computed, and optionally how long it took.
    public mutating func complete(_ step: Step, microseconds: UInt64? = nil) {
        endCopies(of: step)
        for (rank, plan) in step.ranks.enumerated() { schedulers[rank].complete(plan, microseconds: microseconds) }
    }

    /// Records that a planned step failed half-way; returns the requests that are given up with it.
    public mutating func abandon(_ step: Step) -> [UInt64] {
        endCopies(of: step)
        return step.ranks.enumerated().flatMap { rank, plan in schedulers[rank].abandon(plan) }
    }

    private mutating func endCopies(of step: Step) {
        for copy in step.copies { copy.holds.first.flatMap(index(of:)).map { schedulers[$0].ended(copy) } }
    }

    /// The prompt's state has arrived in full. False when the request does not wait for it any more, and what arrived
    /// must be thrown away.
    public mutating func received(id: UInt64, transfer: Hold, cached: Int = 0) -> Bool {
        index(of: transfer).map { schedulers[$0].received(id: id, transfer: transfer, cached: cached) } ?? false
    }

    /// Nothing is sent or written through the transfer any more. False when it had ended.
    @discardableResult
    public mutating func endTransfer(_ transfer: Hold) -> Bool {
        index(of: transfer).map { schedulers[$0].endTransfer(transfer) } ?? false
    }

    /// Forgets all that is kept of requests, on all ranks.
    public mutating func flushPrefixes() {
        for rank in schedulers.indices { schedulers[rank].flushPrefixes() }
    }

    /// What happened since the last call, rank by rank.
    public mutating func takeEvents() -> [SchedulerEvent] {
        schedulers.indices.flatMap { schedulers[$0].takeEvents() }
    }

    private func home(of id: UInt64) -> Int? { schedulers.firstIndex { $0.holds(id) } }

    private func index(of transfer: Hold) -> Int? {
        let rank = transfer.dpRank - firstRank
        return schedulers.indices.contains(rank) ? rank : nil
    }

    private var emptiest: Int {
        func share(_ rank: Int) -> Double {
            let scheduler = schedulers[rank]
            return max(
                Double(scheduler.requestCount) / Double(max(1, scheduler.pools.slotCount)),
                Double(scheduler.claimedTokens)
                    / Double(max(1, scheduler.pools.pageCount * scheduler.pools.pageTokens)))
        }
        return schedulers.indices.min {
            (share($0), lastChosen[$0], $0) < (share($1), lastChosen[$1], $1)
        } ?? 0
    }
}
