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

        mutating func join(_ step: UInt64) {
            isInFlight = true
            lastServed = step
        }

        /// True when the entry was planned for the memory that the request still has; it may be planned again then.
        mutating func leaveStep(_ entry: StepEntry) -> Bool {
            guard reservation?.generation == entry.reservation.generation else { return false }
            isInFlight = false
            return true
        }

        /// Takes what a step computed; true when that completes a prompt that is handed out.
        mutating func advance(_ entry: StepEntry) -> Bool {
            computed = entry.positions.upperBound
            if entry.samples { known += 1 }
            guard spec.role == .prefillOnly, !isPrefilling else { return false }
            phase = .handingOut
            return true
        }

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
    public internal(set) var pacer = StepPacer()
    var requests: [UInt64: Request] = [:]
    var waiting: [UInt64] = []
    var computing: [UInt64] = []
    var events: [SchedulerEvent] = []
    var preemptions = 0
    private var nextSequence: UInt64 = 0
    var step: UInt64 = 0
    /// Requests that may take part in the step being planned, in the order in which they are served.
    var idle: [Candidate] = []

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
        prepareStep(now: now)
        return planPrepared(limits.stepPolicy.kind(hasPrompts: hasPreparedPrompts))
    }

    /// Records that a planned step was computed, and optionally how long it took.
    public mutating func complete(_ plan: [StepEntry], microseconds: UInt64? = nil) {
        if let microseconds {
            var (decodeRows, prefillRows) = (0, 0)
            for entry in plan {
                if entry.isPrefill { prefillRows += entry.positions.count } else { decodeRows += entry.positions.count }
            }
            pacer.record(decodeRows: decodeRows, prefillRows: prefillRows, microseconds: microseconds)
        }
        for entry in plan where pools.end(entry.hold) && requests[entry.id]?.leaveStep(entry) == true {
            guard requests[entry.id]?.advance(entry) == true else { continue }
            computing.removeAll { $0 == entry.id }
            events.append(.promptComplete(id: entry.id))
        }
    }

    /// Records that a planned step failed half-way. Recurrent states may have moved in some layers and not in others, so
    /// its requests start again from their tokens; those that cannot (their state was being handed out, or they failed
    /// too often) are removed and returned.
    public mutating func abandon(_ plan: [StepEntry]) -> [UInt64] {
        var lost: [UInt64] = []
        for entry in plan where pools.end(entry.hold) && requests[entry.id]?.leaveStep(entry) == true {
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
}
