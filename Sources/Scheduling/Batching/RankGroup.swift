import StatePools

/// The data-parallel attention ranks of one slice as a value: one SPMD step spans all of them, so they begin and end
/// every step together, each with the requests and the memory it has.
///
/// A request belongs to one rank from the moment it comes, as it must: its pages and its slot mean nothing elsewhere. It
/// goes where the smaller share of slots and tokens is taken, by a ledger that counts what waits there too; ties go to
/// the rank that was chosen longest ago. That is `PlacementController`'s least-loaded rule, one level below it.
public struct RankGroup: Sendable {
    /// One step of all ranks.
    public struct Step: Sendable, Equatable {
        /// What each rank computes; some may have nothing to do.
        public let ranks: [[StepEntry]]

        /// True when no rank has anything to compute.
        public var isEmpty: Bool { ranks.allSatisfy(\.isEmpty) }
        /// What all ranks compute, rank by rank.
        public var entries: [StepEntry] { ranks.count == 1 ? ranks[0] : ranks.flatMap { $0 } }
    }

    private struct Home: Sendable {
        let rank: Int
        let tokens: Int
    }

    private struct Ledger: Sendable {
        var requests = 0
        var tokens = 0
        var lastChosen: UInt64 = 0
    }

    /// The limits of every rank.
    public let limits: SchedulerLimits
    /// The ranks' schedulers, with the pools of each.
    public private(set) var schedulers: [BatchScheduler]
    /// Data-parallel rank of the first scheduler.
    public let firstRank: Int
    private var homes: [UInt64: Home] = [:]
    private var ledgers: [Ledger]
    private var clock: UInt64 = 0

    /// `ranks` ranks with pools of `slotCount` recurrent slots and `pageCount` pages each, padding not counted.
    public init(limits: SchedulerLimits, ranks: Int = 1, slotCount: Int, pageCount: Int, firstRank: Int = 0) {
        self.limits = limits
        self.firstRank = firstRank
        schedulers = (0..<max(1, ranks)).map { rank in
            BatchScheduler(
                limits: limits,
                pools: StatePools(slotCount: slotCount, pageCount: pageCount, dpRank: firstRank + rank))
        }
        ledgers = Array(repeating: Ledger(), count: max(1, ranks))
    }

    /// Ranks that share the steps.
    public var rankCount: Int { schedulers.count }
    /// Recurrent slots of all ranks.
    public var slotCount: Int { schedulers.reduce(0) { $0 + $1.pools.slotCount } }
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
    /// The rank a request belongs to, counted from `firstRank`; nil when it is not here.
    public func rank(of id: UInt64) -> Int? { homes[id].map { firstRank + $0.rank } }

    /// Takes a request in on one rank, or says why not. `now` is in microseconds.
    public mutating func submit(_ spec: ScheduledRequest, now: UInt64) -> Admission {
        guard homes[spec.id] == nil else { return .rejected(.duplicate(spec.id)) }
        let rank = emptiest
        let answer = schedulers[rank].submit(spec, now: now)
        if case .rejected = answer { return answer }
        let home = Home(rank: rank, tokens: claim(spec))
        homes[spec.id] = home
        clock += 1
        ledgers[rank].requests += 1
        ledgers[rank].tokens += home.tokens
        ledgers[rank].lastChosen = clock
        return answer
    }

    /// Forgets a request. What a step or transfer still reaches goes into quarantine until that is over.
    @discardableResult
    public mutating func remove(id: UInt64) -> ReleaseOutcome? {
        guard let rank = forget(id) else { return nil }
        return schedulers[rank].remove(id: id)
    }

    /// Plans the next step of all ranks. Call `complete` or `abandon` with it, whatever happens.
    public mutating func planStep(now: UInt64) -> Step {
        for rank in schedulers.indices { schedulers[rank].prepareStep(now: now) }
        let kind = limits.stepPolicy.kind(hasPrompts: schedulers.contains(where: \.hasPreparedPrompts))
        return Step(ranks: schedulers.indices.map { schedulers[$0].planPrepared(kind) })
    }

    /// Records that a planned step was computed, and optionally how long it took.
    public mutating func complete(_ step: Step, microseconds: UInt64? = nil) {
        for (rank, plan) in step.ranks.enumerated() { schedulers[rank].complete(plan, microseconds: microseconds) }
    }

    /// Records that a planned step failed half-way; returns the requests that are given up with it.
    public mutating func abandon(_ step: Step) -> [UInt64] {
        let lost = step.ranks.enumerated().flatMap { rank, plan in schedulers[rank].abandon(plan) }
        for id in lost { forget(id) }
        return lost
    }

    /// The prompt's state has arrived in full. False when the request does not wait for it any more, and what arrived
    /// must be thrown away.
    public mutating func received(id: UInt64, transfer: Hold) -> Bool {
        guard let rank = index(of: transfer) else { return false }
        return schedulers[rank].received(id: id, transfer: transfer)
    }

    /// Nothing is sent or written through the transfer any more. False when it had ended.
    @discardableResult
    public mutating func endTransfer(_ transfer: Hold) -> Bool {
        guard let rank = index(of: transfer) else { return false }
        return schedulers[rank].endTransfer(transfer)
    }

    /// What happened since the last call, rank by rank.
    public mutating func takeEvents() -> [SchedulerEvent] {
        var all: [SchedulerEvent] = []
        for rank in schedulers.indices { all += schedulers[rank].takeEvents() }
        for case .expired(let id) in all { forget(id) }
        return all
    }

    private func index(of transfer: Hold) -> Int? {
        let rank = transfer.dpRank - firstRank
        return schedulers.indices.contains(rank) ? rank : nil
    }

    @discardableResult
    private mutating func forget(_ id: UInt64) -> Int? {
        guard let home = homes.removeValue(forKey: id) else { return nil }
        ledgers[home.rank].requests -= 1
        ledgers[home.rank].tokens -= home.tokens
        return home.rank
    }

    /// Tokens that a request takes with its expected growth, in whole pages.
    private func claim(_ spec: ScheduledRequest) -> Int {
        let growth =
            spec.role == .prefillOnly ? 0 : Double(spec.maximumTokens) * min(1, max(0, limits.expectedGrowth))
        let expected = min(Int(growth.rounded(.up)), limits.expectedTokens)
        return schedulers[0].pools.pages(forTokens: spec.promptTokens + expected)
            * schedulers[0].pools.pageTokens
    }

    private var emptiest: Int {
        func share(_ rank: Int) -> Double {
            let pools = schedulers[rank].pools
            return max(
                Double(ledgers[rank].requests) / Double(max(1, pools.slotCount)),
                Double(ledgers[rank].tokens) / Double(max(1, pools.pageCount * pools.pageTokens)))
        }
        return schedulers.indices.min {
            (share($0), ledgers[$0].lastChosen, $0) < (share($1), ledgers[$1].lastChosen, $1)
        } ?? 0
    }
}

extension SchedulerLoad {
    /// Two instances taken together.
    static func + (one: SchedulerLoad, other: SchedulerLoad) -> SchedulerLoad {
        SchedulerLoad(
            waiting: one.waiting + other.waiting, receiving: one.receiving + other.receiving,
            computing: one.computing + other.computing, handingOut: one.handingOut + other.handingOut,
            slots: one.slots + other.slots, pages: one.pages + other.pages,
            preemptions: one.preemptions + other.preemptions)
    }
}
