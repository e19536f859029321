import StatePools

/// Continuous batching as a value: requests in, step plans out. It reads no clock and does no I/O.
///
/// A step takes decode rows first, then prompts in turn, block of 64 by block of 64, so that a long prompt neither
/// starves a short one nor stretches a running stream's gap beyond `prefillBesideDecode` rows. A request's tokens are
/// known before they are computed (prompt, replayed) or become known by sampling the last known one; that is all the
/// difference between prefill, replay and decode:
///
///     computed < promptTokens   a prompt chunk, cut at multiples of 64
///     computed < known - 1      a replayed token, not sampled
///     computed = known - 1      the last known token: its row is sampled, and one more token is known
///
/// Memory is reserved for the known tokens and the expected growth when a request enters (`BatchScheduler+Memory`).
/// Requests in a step are not planned again until it is completed, so several steps may be in flight.
public struct BatchScheduler: Sendable {
    enum Phase: Sendable { case waiting, receiving, computing, handingOut }

    struct Request: Sendable {
        let spec: ScheduledRequest
        let sequence: UInt64
        let expires: UInt64
        var known: Int
        var computed = 0
        var phase = Phase.waiting
        var deferral = Deferral.behindOthers
        var reservation: Reservation?
        var transfer: Hold?
        var isInFlight = false
        var lastServed: UInt64 = 0
        var preemptions = 0
        var recomputations = 0
        var passedOver = 0

        var isPrefilling: Bool { computed < spec.promptTokens }

        /// Goes before `other` in the waiting queue, and keeps its memory when one of the two must give it up.
        func precedes(_ other: Request) -> Bool {
            if spec.priority != other.spec.priority { return spec.priority > other.spec.priority }
            if (preemptions > 0) != (other.preemptions > 0) { return preemptions > 0 }
            return sequence < other.sequence
        }
    }

    /// The limits in force.
    public let limits: SchedulerLimits
    /// The memory bookkeeping.
    public internal(set) var pools: StatePools
    /// What the steps took, and how many prompt rows that allows beside decode rows.
    public private(set) var pacer = StepPacer()
    var requests: [UInt64: Request] = [:]
    var waiting: [UInt64] = []
    var computing: [UInt64] = []
    var events: [SchedulerEvent] = []
    var preemptions = 0
    private var nextSequence: UInt64 = 0
    private var step: UInt64 = 0

    /// A scheduler over empty pools.
    public init(limits: SchedulerLimits, pools: StatePools) {
        self.limits = limits
        self.pools = pools
    }

    /// Requests that wait for memory.
    public var waitingCount: Int { waiting.count }
    /// Requests that hold memory.
    public var runningCount: Int { requests.count - waiting.count }
    /// True when a request is here, whatever it waits for.
    public var hasWork: Bool { !requests.isEmpty }
    /// Time at which the next waiting request expires.
    public var nextExpiry: UInt64? { waiting.compactMap { requests[$0]?.expires }.min() }
    /// How full the instance is.
    public var load: SchedulerLoad {
        SchedulerLoad(
            waiting: waiting.count, receiving: requests.values.count { $0.phase == .receiving },
            computing: computing.count, handingOut: requests.values.count { $0.phase == .handingOut },
            slots: pools.slots, pages: pools.pages, preemptions: preemptions)
    }

    /// What happened since the last call.
    public mutating func takeEvents() -> [SchedulerEvent] {
        defer { events.removeAll() }
        return events
    }

    /// Takes a request in, or says why not. `now` is in microseconds, from any clock that the later calls share.
    public mutating func submit(_ spec: ScheduledRequest, now: UInt64) -> Admission {
        if let refusal = refusal(of: spec) { return .rejected(refusal) }
        let (limit, overflow) = now.addingReportingOverflow(limits.waitMicroseconds)
        requests[spec.id] = Request(
            spec: spec, sequence: nextSequence, expires: spec.waitUntil ?? (overflow ? .max : limit),
            known: spec.promptTokens + spec.replayTokens)
        nextSequence += 1
        enqueue(spec.id)
        admit()
        guard let request = requests[spec.id], request.phase == .waiting else { return .admitted }
        guard waiting.count <= limits.waiting else {
            remove(id: spec.id)
            return .rejected(.queueFull(limit: limits.waiting))
        }
        return .deferred(request.deferral)
    }

    /// Forgets a request. What a step or transfer still reaches goes into quarantine until that is over.
    @discardableResult
    public mutating func remove(id: UInt64) -> ReleaseOutcome? {
        guard let request = requests.removeValue(forKey: id) else { return nil }
        waiting.removeAll { $0 == id }
        computing.removeAll { $0 == id }
        return request.reservation.map { pools.release($0) }
    }

    /// Plans the next step. Call `complete` or `abandon` with it, whatever happens.
    public mutating func planStep(now: UInt64) -> [StepEntry] {
        expire(now: now)
        admit()
        step += 1
        let idle = computing.compactMap { requests[$0] }.filter { !$0.isInFlight }.sorted(by: isServedBefore)
        let prompts = idle.filter(\.isPrefilling)
        let plan = planDecode(idle.filter { !$0.isPrefilling }, leaving: prompts.isEmpty ? 0 : 64)
        guard !prompts.isEmpty else { return plan }
        return plan + planPrefill(prompts, rows: prefillRows(beside: plan))
    }

    /// Records that a planned step was computed, and optionally how long it took.
    public mutating func complete(_ plan: [StepEntry], microseconds: UInt64? = nil) {
        if let microseconds {
            pacer.record(
                decodeRows: plan.filter { !$0.isPrefill }.reduce(0) { $0 + $1.positions.count },
                prefillRows: plan.filter(\.isPrefill).reduce(0) { $0 + $1.positions.count }, microseconds: microseconds)
        }
        for entry in plan where leavesStep(entry) {
            requests[entry.id]?.computed = entry.positions.upperBound
            if entry.samples { requests[entry.id]?.known += 1 }
            guard let request = requests[entry.id], request.spec.role == .prefillOnly, !request.isPrefilling
            else { continue }
            requests[entry.id]?.phase = .handingOut
            computing.removeAll { $0 == entry.id }
            events.append(.promptComplete(id: entry.id))
        }
    }

    /// Records that a planned step failed half-way. Recurrent states may have moved in some layers and not in others, so
    /// its requests start again from their tokens; those that cannot (their state was being handed out, or they failed
    /// too often) are removed and returned.
    public mutating func abandon(_ plan: [StepEntry]) -> [UInt64] {
        var lost: [UInt64] = []
        for entry in plan where leavesStep(entry) {
            requests[entry.id]?.recomputations += 1
            guard let request = requests[entry.id], request.spec.role != .prefillOnly,
                request.recomputations <= limits.recomputations
            else {
                remove(id: entry.id)
                lost.append(entry.id)
                continue
            }
            preempt(entry.id)
        }
        return lost
    }

    /// True when the entry's request is still the one that was planned; ends its hold in any case.
    private mutating func leavesStep(_ entry: StepEntry) -> Bool {
        guard pools.end(entry.hold), let request = requests[entry.id],
            request.reservation?.generation == entry.reservation.generation
        else { return false }
        requests[entry.id]?.isInFlight = false
        return true
    }

    private func isServedBefore(_ one: Request, _ other: Request) -> Bool {
        if one.spec.priority != other.spec.priority { return one.spec.priority > other.spec.priority }
        return (one.lastServed, one.sequence) < (other.lastServed, other.sequence)
    }

    private mutating func planDecode(_ candidates: [Request], leaving reserve: Int) -> [StepEntry] {
        var rows = limits.rowsPerStep - reserve
        var plan: [StepEntry] = []
        for request in candidates where rows > 0 {
            let count = min(max(1, limits.replayRows), request.known - request.computed, rows)
            guard secure(request.spec.id, tokens: request.computed + count),
                let entry = enter(request.spec.id, rows: count)
            else { continue }
            plan.append(entry)
            rows -= count
        }
        return plan
    }

    private mutating func prefillRows(beside decode: [StepEntry]) -> Int {
        let left = limits.rowsPerStep - decode.reduce(0) { $0 + $1.positions.count }
        guard !decode.isEmpty else { return left }
        return min(left, pacer.prefillRows(limit: limits.prefillBesideDecode))
    }

    private mutating func planPrefill(_ prompts: [Request], rows: Int) -> [StepEntry] {
        var rows = rows
        var granted = Array(repeating: 0, count: prompts.count)
        var isGranting = true
        while isGranting {
            isGranting = false
            for (index, request) in prompts.enumerated() {
                let left = request.spec.promptTokens - request.computed - granted[index]
                let block = min(64, left, limits.prefillChunk - granted[index])
                guard block > 0, block <= rows else { continue }
                granted[index] += block
                rows -= block
                isGranting = true
            }
        }
        return zip(prompts, granted).compactMap { request, count in enter(request.spec.id, rows: count) }
    }

    /// The request's next `rows` rows as part of the step being planned; nil for none.
    private mutating func enter(_ id: UInt64, rows: Int) -> StepEntry? {
        guard rows > 0, let request = requests[id], request.phase == .computing,
            let reservation = request.reservation, let hold = pools.hold(reservation, for: .step)
        else { return nil }
        let end = request.computed + rows
        pools.markWritten(reservation, tokens: end)
        requests[id]?.isInFlight = true
        requests[id]?.lastServed = step
        return StepEntry(
            id: id, reservation: reservation, positions: request.computed..<end, isPrefill: request.isPrefilling,
            samples: end == request.known, hold: hold)
    }
}
