import Serving
import StatePools

/// Continuous batching as a value: requests in, steps out. It reads no clock and does no I/O, and is read downwards, in
/// the order of a request's life.
///
/// A step takes decode rows first, then prompts in turn, block of 64 by block of 64, so that a long prompt neither
/// starves a short one nor stretches a running stream's gap beyond `prefillBesideDecode` rows. A request's tokens are
/// known before they are computed, or become known by sampling the last known one, and that is all the difference between
/// prefill and decode. One that has lost its memory is a prompt again, of all the tokens that it knows:
///
///     computed < known - 1      several rows of a prompt, cut at multiples of 64
///     computed = known - 1      the last known token: its row is sampled, and one more token is known
///
/// Memory is reserved for the known tokens and the expected growth when a request enters. Requests in a step are not
/// planned again until it is completed, so several steps may be in flight.
public struct Scheduler: Sendable {
    enum Phase: Sendable { case waiting, receiving, computing, handingOut }

    /// What is kept of a request while it is here.
    struct Scheduled: Sendable {
        var request: Request
        let sequence: UInt64
        /// Tokens that are known; those of the answer become so a moment before their ids are there.
        var known: Int
        var computed = 0
        var phase = Phase.waiting
        var reservation: Reservation?
        var transfer: Hold?
        var isInFlight = false
        var lastServed: UInt64 = 0
        var preemptions = 0
        var recomputations = 0
        /// Where another sequence went another way than one that is kept: worth keeping, once it is computed.
        var branch = 0

        /// Rows until all is computed that is known, or asked for.
        var left: Int { target - computed }
        /// Tokens until which it is computed.
        var target: Int { request.part == .prefill ? request.promptCount : known }
        /// True when more than a stream's next token is left.
        var isPrefilling: Bool { left > 1 || request.part == .prefill }

        /// Keeps its memory when one of the two must give it up.
        func precedes(_ other: Scheduled) -> Bool {
            if request.priority != other.request.priority { return request.priority > other.request.priority }
            if (preemptions > 0) != (other.preemptions > 0) { return preemptions > 0 }
            return sequence < other.sequence
        }
    }

    /// The limits in force.
    public let limits: SchedulerLimits
    /// The memory bookkeeping.
    public private(set) var pools: StatePools
    /// What is kept of requests that ended, for others that begin like them.
    public private(set) var prefixes = PrefixCache()
    /// Tokens that were not computed again because their state was kept.
    public private(set) var hitTokens = 0
    /// Copies of states that the next step begins with.
    private var copies: [StateCopy] = []
    /// What the steps took, and how many prompt rows that allows beside decode rows.
    public private(set) var pacer = StepPacer()
    /// Tokens that all requests here take with their expected growth, in whole pages.
    public private(set) var claimedTokens = 0
    private var requests: [UInt64: Scheduled] = [:]
    private var queue: AdmissionQueue<Deferral>
    private var computing: [UInt64] = []
    private var events: [SchedulerEvent] = []
    private var preemptions = 0
    private var nextSequence: UInt64 = 0
    private var step: UInt64 = 0
    /// Time of the last call that said it, microseconds.
    private var now: UInt64 = 0
    /// Requests that may take part in the step being planned, in the order in which they are served.
    private var idle: [Candidate] = []

    /// A scheduler over empty pools.
    public init(limits: SchedulerLimits, pools: StatePools) {
        self.limits = limits
        self.pools = pools
        queue = AdmissionQueue(passes: limits.passesOver, looks: 64)
    }

    /// A request that must be here.
    private subscript(id: UInt64) -> Scheduled {
        get { requests[id] ?? Self.absent(id) }
        _modify { yield &requests[id, default: Self.absent(id)] }
    }

    private static func absent(_ id: UInt64) -> Scheduled {
        preconditionFailure("request \(id) is planned for and not here")
    }

    // MARK: A request comes

    /// Takes a request in, or says why not. `now` is in microseconds, from any clock that the later calls share.
    public mutating func submit(_ request: Request, now: UInt64) -> Admission {
        if let refusal = refusal(of: request) { return .rejected(refusal) }
        requests[request.id] = Scheduled(request: request, sequence: nextSequence, known: request.knownCount)
        nextSequence += 1
        claimedTokens += claim(request)
        self.now = now
        wait(for: request.id, wasIn: false)
        admit()
        guard let reason = queue.reason(of: request.id) else { return .admitted }
        guard queue.count <= limits.waiting else {
            remove(id: request.id)
            return .rejected(.queueFull(limit: limits.waiting))
        }
        return .deferred(reason)
    }

    private func refusal(of request: Request) -> AdmissionRefusal? {
        guard requests[request.id] == nil else { return .duplicate(request.id) }
        guard request.promptCount > 0, request.generatedCount >= 0,
            request.part == .prefill ? request.maximumTokens >= 0 : request.generatedCount < request.maximumTokens
        else {
            return .invalid(
                "a request needs prompt tokens, and max_tokens above what was generated: \(request.promptCount) prompt, "
                    + "\(request.maximumTokens) at most, \(request.generatedCount) generated")
        }
        let total = request.part == .prefill ? request.promptCount : request.mostTokens
        let capacity = pools.pageCount * pools.pageTokens
        guard total <= capacity, requestSlots > 0 else { return .neverFits(tokens: total, limit: capacity) }
        return nil
    }

    /// The wait begins when it begins to wait, also for one that lost its memory.
    private mutating func wait(for id: UInt64, wasIn: Bool) {
        precondition(self[id].reservation == nil, "request \(id) waits for memory that it has")
        let (limit, overflow) = now.addingReportingOverflow(limits.waitMicroseconds)
        queue.enter(
            self[id].request, sequence: self[id].sequence, wasIn: wasIn, expires: overflow ? .max : limit,
            because: .behindOthers)
    }

    /// Tokens that a request takes with its expected growth, in whole pages.
    private func claim(_ request: Request) -> Int {
        let growth =
            request.part == .prefill ? 0 : Double(request.maximumTokens) * min(1, max(0, limits.expectedGrowth))
        let expected = min(Int(growth.rounded(.up)), limits.expectedTokens)
        return pools.pages(forTokens: request.promptCount + expected) * pools.pageTokens
    }

    // MARK: It is given memory

    /// Drops waiting requests whose time is over.
    private mutating func expire() {
        for waiting in queue.expire(now: now) {
            remove(id: waiting.id)
            events.append(.expired(id: waiting.id))
        }
    }

    /// Admits what fits, in order.
    private mutating func admit() {
        guard !queue.isEmpty else { return }
        var receiving = requests.values.count { $0.phase == .receiving }
        var pass = queue.pass()
        while let id = queue.next(&pass) {
            if let reason = tryAdmit(id, &receiving) {
                queue.deny(&pass, because: reason)
            } else {
                queue.admit(&pass)
            }
        }
    }

    /// Nil when the request was given memory, otherwise why not.
    private mutating func tryAdmit(_ id: UInt64, _ receiving: inout Int) -> Deferral? {
        let scheduled = self[id]
        precondition(scheduled.phase == .waiting, "request \(id) is let in twice")
        let receives = scheduled.request.part == .decode
        let limit = receives ? limits.receiving : limits.running
        guard (receives ? receiving : computing.count) < limit else { return .atLimit(limit) }
        guard runningCount < requestSlots else { return .noMemory(.noSlot(slots: requestSlots)) }
        let reservation: Reservation
        do throws(ReservationRefusal) { reservation = try reserve(for: scheduled) } catch { return .noMemory(error) }
        let transfer = scheduled.request.part == .both ? nil : pools.hold(reservation, for: .transfer)
        self[id].reservation = reservation
        self[id].transfer = transfer
        self[id].phase = receives ? .receiving : .computing
        if receives { receiving += 1 } else { computing.append(id) }
        events.append(.admitted(id: id, reservation, transfer: transfer))
        return nil
    }

    /// Memory for a request, and with it what is kept of its tokens. Whatever else is kept makes room. Who receives its
    /// prompt's state needs no state here, and shares pages wherever others have them.
    private mutating func reserve(for scheduled: Scheduled) throws(ReservationRefusal) -> Reservation {
        let (id, tokens, receives) = (scheduled.request.id, promise(scheduled), scheduled.request.part == .decode)
        var match = match(scheduled)
        while true {
            let used = receives ? match.nearest : match.snapshot
            let source = used.flatMap { prefixes[$0] }?.reservation
            let shared = source.map { pools.handles(filledBy: receives ? match.common : match.tokens, of: $0) } ?? []
            do throws(ReservationRefusal) {
                let reservation = try pools.reserve(tokens: tokens, for: .request(id), sharing: shared)
                if let used, !receives || !shared.isEmpty { prefixes.use(used) }
                guard !receives else { return reservation }
                if let source { goOn(id, from: source, match.tokens, in: reservation) }
                assert(shared.count * pools.pageTokens <= match.tokens, "what is shared is covered by the state")
                if match.common >= match.tokens + Block.tokens { self[id].branch = Block.down(match.common) }
                return reservation
            } catch {
                let missing = pools.pages(forTokens: tokens) - shared.count - pools.pages[.free]
                guard error != .stale, missing <= pools.pages[.cached] else { throw error }
                guard !makeRoom(sparing: used) else { continue }
                guard used != nil else { throw error }
                match = .none
            }
        }
    }

    /// What is kept of a request's tokens; its last one is computed in any case, since the next one follows from it.
    private func match(_ scheduled: Scheduled) -> PrefixCache.Match {
        let request = scheduled.request
        guard limits.keepsPrefixes, request.tokens.count == request.knownCount else { return .none }
        let target = request.part == .decode ? request.promptCount : scheduled.target
        return prefixes.match(request.tokens, limit: target - 1, salt: request.cacheSalt)
    }

    private mutating func goOn(_ id: UInt64, from source: Reservation, _ tokens: Int, in own: Reservation) {
        precondition(tokens < self[id].target, "request \(id) goes on from what leaves nothing to compute")
        copy(source, to: own, tokens: tokens)
        self[id].computed = tokens
        guard self[id].preemptions + self[id].recomputations == 0 else { return }
        self[id].request.cachedCount = min(tokens, self[id].request.promptCount)
        hitTokens += tokens
    }

    /// Has the next step begin by copying a state and the page that is not full. Both stay held until it is over.
    private mutating func copy(_ source: Reservation, to destination: Reservation, tokens: Int) {
        guard let reading = pools.hold(source, for: .step), let writing = pools.hold(destination, for: .step) else {
            preconditionFailure("a state is copied between reservations that are there")
        }
        let page = tokens / pools.pageTokens
        copies.append(
            StateCopy(
                slots: (source.slot, destination.slot),
                pages: tokens % pools.pageTokens == 0 ? nil : (source.pages[page], destination.pages[page]),
                holds: [reading, writing]))
    }

    /// Copies that the step being planned begins with; tell `ended` of each when it is over.
    mutating func takeCopies() -> [StateCopy] {
        defer { copies = [] }
        return copies
    }

    /// A copy was made, or never will be.
    mutating func ended(_ copy: StateCopy) {
        for hold in copy.holds {
            let wasOpen = pools.end(hold)
            precondition(wasOpen, "a copy ends once")
        }
    }

    /// Frees the memory of the least that is kept. False when there is none.
    private mutating func makeRoom(sparing snapshot: Int? = nil, lighterThan tokens: Int? = nil) -> Bool {
        guard let reservation = prefixes.evict(sparing: snapshot, lighterThan: tokens) else { return false }
        let outcome = pools.release(reservation)
        precondition(outcome != .stale, "what was kept is there until it makes room")
        return true
    }

    /// Forgets all that is kept. Requests that go on from it have their copies, or get them yet.
    public mutating func flushPrefixes() {
        for reservation in prefixes.removeAll() { _ = pools.release(reservation) }
        assert(prefixes.count == 0, "what is flushed is gone")
    }

    /// Tokens to reserve for: the known ones and the expected growth. Who was preempted once is promised everything, up to
    /// the limit of what is expected.
    private func promise(_ scheduled: Scheduled) -> Int {
        guard scheduled.request.part != .prefill else { return scheduled.request.promptCount }
        let most = scheduled.request.mostTokens
        let left = Double(max(0, most - scheduled.known))
        let share = scheduled.preemptions > 0 ? 1 : min(1, max(0, limits.expectedGrowth))
        let expected = limits.expected(afterPreemptions: scheduled.preemptions)
        return min(most, scheduled.known + min(Int((left * share).rounded(.up)), expected))
    }

    /// The prompt's state has arrived in full; the request decodes from the next step on. Returns false when the request
    /// is not waiting for it: it was cancelled or preempted, and what arrived must be thrown away. The sender had `cached`
    /// tokens of the prompt already.
    public mutating func received(id: UInt64, transfer: Hold, cached: Int = 0) -> Bool {
        guard pools.end(transfer), let scheduled = requests[id], scheduled.phase == .receiving,
            scheduled.transfer == transfer, let reservation = scheduled.reservation
        else { return false }
        pools.markWritten(reservation, tokens: scheduled.request.promptCount)
        self[id].transfer = nil
        self[id].phase = .computing
        self[id].computed = scheduled.request.promptCount
        self[id].request.cachedCount = min(cached, scheduled.request.promptCount)
        // The sender sampled the first token, unless it and more were known before.
        self[id].known = max(scheduled.known, scheduled.request.promptCount + 1)
        assert(self[id].left > 0, "who decodes has a token to compute")
        computing.append(id)
        return true
    }

    // MARK: It takes part in steps

    /// A request that could take part in the next step, as it was when planning began.
    private struct Candidate: Sendable {
        let id: UInt64
        let priority: Int
        let lastServed: UInt64
        let sequence: UInt64
        let left: Int
        let computed: Int
        let isPrefilling: Bool

        init(_ scheduled: Scheduled, _ limits: SchedulerLimits) {
            id = scheduled.request.id
            priority = scheduled.request.priority
            lastServed = scheduled.lastServed
            sequence = scheduled.sequence
            computed = scheduled.computed
            isPrefilling = scheduled.isPrefilling
            left = isPrefilling ? limits.stop(of: scheduled) - computed : scheduled.left
        }

        func isServed(before other: Candidate) -> Bool {
            if priority != other.priority { return priority > other.priority }
            return (lastServed, sequence) < (other.lastServed, other.sequence)
        }

        /// The order of `StepPolicy.prefillFirst`, which finishes a prompt before it begins the next.
        func isEarlier(than other: Candidate) -> Bool {
            if priority != other.priority { return priority > other.priority }
            return sequence < other.sequence
        }
    }

    /// Plans the next step. Call `complete` or `abandon` with it, whatever happens.
    public mutating func planStep(now: UInt64) -> [StepEntry] {
        prepareStep(now: now)
        return planPrepared(limits.stepPolicy.kind(hasPrompts: hasPreparedPrompts))
    }

    /// First half of planning a step: lets waiting requests in or go, and sees who could compute.
    mutating func prepareStep(now: UInt64) {
        self.now = now
        expire()
        admit()
        step += 1
        idle.removeAll(keepingCapacity: true)
        var isSorted = true
        for id in computing {
            let scheduled = self[id]
            guard !scheduled.isInFlight else { continue }
            let candidate = Candidate(scheduled, limits)
            if let last = idle.last, candidate.isServed(before: last) { isSorted = false }
            idle.append(candidate)
        }
        if !isSorted { idle.sort { $0.isServed(before: $1) } }
    }

    /// True when a prompt could be computed in the step that `prepareStep` began.
    var hasPreparedPrompts: Bool { idle.contains(where: \.isPrefilling) }

    /// Second half: the rows of a step of `kind`.
    mutating func planPrepared(_ kind: StepKind) -> [StepEntry] {
        switch kind {
        case .mixed:
            let prompts = idle.filter(\.isPrefilling)
            let plan = planDecode(leaving: prompts.isEmpty ? 0 : Block.tokens)
            guard !prompts.isEmpty else { return plan }
            return plan + planPromptsInTurn(prompts, rows: promptRows(beside: plan))
        case .prefill: return planPromptsInOrder()
        case .decode: return planDecode(leaving: 0)
        }
    }

    private mutating func planDecode(leaving reserve: Int) -> [StepEntry] {
        var rows = limits.rowsPerStep - reserve
        var plan: [StepEntry] = []
        plan.reserveCapacity(idle.count)
        for candidate in idle where rows > 0 && !candidate.isPrefilling {
            guard secure(candidate.id, tokens: candidate.computed + 1), let entry = enter(candidate.id, rows: 1)
            else { continue }
            plan.append(entry)
            rows -= 1
        }
        assert(plan.count <= max(0, limits.rowsPerStep - reserve), "a step has no more rows than it may")
        return plan
    }

    private mutating func promptRows(beside decode: [StepEntry]) -> Int {
        let left = limits.rowsPerStep - decode.reduce(0) { $0 + $1.positions.count }
        guard !decode.isEmpty else { return left }
        return min(left, pacer.prefillRows(limit: limits.prefillBesideDecode))
    }

    private mutating func planPromptsInTurn(_ prompts: [Candidate], rows: Int) -> [StepEntry] {
        var rows = rows
        var granted = Array(repeating: 0, count: prompts.count)
        var isGranting = true
        while isGranting {
            isGranting = false
            for (index, prompt) in prompts.enumerated() {
                let left = prompt.left - granted[index]
                let block = min(Block.tokens - (prompt.computed + granted[index]) % Block.tokens, left)
                guard block > 0, block <= rows, granted[index] + block <= limits.prefillChunk else { continue }
                granted[index] += block
                rows -= block
                isGranting = true
            }
        }
        assert(granted.allSatisfy { $0 <= limits.prefillChunk }, "no prompt has more of a step than a chunk")
        return zip(prompts, granted).compactMap { prompt, count in enter(prompt.id, rows: count) }
    }

    private mutating func planPromptsInOrder() -> [StepEntry] {
        var rows = min(limits.prefillChunk, limits.rowsPerStep)
        var plan: [StepEntry] = []
        for prompt in idle.filter(\.isPrefilling).sorted(by: { $0.isEarlier(than: $1) }) where rows > 0 {
            // What is cut is cut where a block ends.
            let count = prompt.left <= rows ? prompt.left : Block.down(prompt.computed + rows) - prompt.computed
            guard let entry = enter(prompt.id, rows: count) else { continue }
            plan.append(entry)
            rows -= count
        }
        assert(rows >= 0, "a step has no more rows than it may")
        return plan
    }

    /// The request's next `rows` rows as part of the step being planned; nil for none, and for who was preempted since.
    private mutating func enter(_ id: UInt64, rows: Int) -> StepEntry? {
        let scheduled = self[id]
        guard rows > 0, scheduled.phase == .computing, let reservation = scheduled.reservation,
            let hold = pools.hold(reservation, for: .step)
        else { return nil }
        precondition(
            !scheduled.isInFlight && rows <= scheduled.left, "request \(id) is planned for once, and for what is left")
        if limits.keeps(scheduled) { takeSnapshot(of: scheduled, reservation) }
        let end = scheduled.computed + rows
        pools.markWritten(reservation, tokens: end)
        self[id].isInFlight = true
        self[id].lastServed = step
        // A prompt that is handed out for tokens which are known already has nothing to choose.
        let wantsToken = scheduled.request.part != .prefill || scheduled.request.maximumTokens > 0
        return StepEntry(
            id: id, reservation: reservation, positions: scheduled.computed..<end,
            samples: end == scheduled.known && wantsToken, hold: hold)
    }

    /// Keeps a copy of a request's state as it is, unless the last of it that is kept is near, or what would have to go
    /// for it is worth more.
    private mutating func takeSnapshot(of scheduled: Scheduled, _ reservation: Reservation) {
        let (tokens, salt) = (Array(scheduled.request.tokens[..<scheduled.computed]), scheduled.request.cacheSalt)
        let fresh = tokens.count - prefixes.match(tokens, limit: tokens.count, salt: salt).tokens
        guard fresh >= Block.tokens else { return }
        let shared = pools.handles(filledBy: tokens.count, of: reservation)
        var kept = try? pools.reserve(tokens: tokens.count, for: .prefix(scheduled.sequence), sharing: shared)
        if kept == nil, makeRoom(lighterThan: fresh) {
            kept = try? pools.reserve(tokens: tokens.count, for: .prefix(scheduled.sequence), sharing: shared)
        }
        guard var kept else { return }
        pools.markWritten(kept, tokens: tokens.count)
        let isKept = pools.keep(&kept, tokens: tokens.count) && prefixes.insert(tokens, salt: salt, kept)
        precondition(isKept, "a new copy is kept, of a sequence that was not")
        copy(reservation, to: kept, tokens: tokens.count)
    }

    // MARK: It needs more memory than is free

    /// Sees to it that a request has pages for `tokens` tokens. When none are free, those that it precedes give up what
    /// they were promised and have not written, then all they have, the last first. False when it has to wait.
    private mutating func secure(_ id: UInt64, tokens: Int) -> Bool {
        guard self[id].phase == .computing else { return false }
        if grow(id, tokens: tokens) { return true }
        let own = self[id]
        let others = computing.map { self[$0] }.filter { own.precedes($0) && $0.transfer == nil }
            .sorted { $1.precedes($0) }
        for other in others {
            guard var reservation = other.reservation, pools.trim(&reservation, keeping: other.known) > 0
            else { continue }
            self[other.request.id].reservation = reservation
            if grow(id, tokens: tokens) { return true }
        }
        for other in others where !other.isInFlight {
            preempt(other.request.id)
            if grow(id, tokens: tokens) { return true }
        }
        return false
    }

    private mutating func grow(_ id: UInt64, tokens: Int) -> Bool {
        guard var reservation = self[id].reservation else { return false }
        guard pools.pages(forTokens: tokens) > reservation.pages.count else { return true }
        repeat {
            do throws(ReservationRefusal) { try pools.grow(&reservation, tokens: tokens) } catch { continue }
            self[id].reservation = reservation
            return true
        } while makeRoom()
        return false
    }

    /// Takes a request's memory and puts it back to the front of the queue.
    private mutating func preempt(_ id: UInt64) {
        guard let reservation = self[id].reservation else {
            preconditionFailure("request \(id) has no memory to give up")
        }
        dropCopies(to: reservation)
        _ = pools.release(reservation)
        computing.removeAll { $0 == id }
        self[id].reservation = nil
        self[id].phase = .waiting
        self[id].computed = 0
        self[id].preemptions += 1
        preemptions += 1
        wait(for: id, wasIn: true)
        events.append(.preempted(id: id))
    }

    // MARK: A step is over

    /// Records that a planned step was computed, and optionally how long it took.
    public mutating func complete(_ plan: [StepEntry], microseconds: UInt64? = nil) {
        if let microseconds {
            var (decodeRows, prefillRows) = (0, 0)
            for entry in plan {
                if entry.isPrefill { prefillRows += entry.positions.count } else { decodeRows += entry.positions.count }
            }
            pacer.record(decodeRows: decodeRows, prefillRows: prefillRows, microseconds: microseconds)
        }
        for entry in plan where pools.end(entry.hold) && leaveStep(entry) {
            self[entry.id].computed = entry.positions.upperBound
            if entry.samples { self[entry.id].known += 1 }
            let scheduled = self[entry.id]
            precondition(scheduled.computed <= scheduled.known, "request \(entry.id) computes what it does not know")
            guard scheduled.request.part == .prefill, entry.positions.upperBound == scheduled.request.promptCount
            else { continue }
            self[entry.id].phase = .handingOut
            computing.removeAll { $0 == entry.id }
            events.append(.promptComplete(id: entry.id))
        }
    }

    /// Records that a planned step failed half-way. Recurrent states may have moved in some layers and not in others, so
    /// its requests start again from their tokens; those that cannot (their state was being handed out, or they failed
    /// too often) are removed and returned.
    public mutating func abandon(_ plan: [StepEntry]) -> [UInt64] {
        var lost: [UInt64] = []
        for entry in plan where pools.end(entry.hold) && leaveStep(entry) {
            self[entry.id].recomputations += 1
            let scheduled = self[entry.id]
            if scheduled.request.part != .prefill, scheduled.recomputations <= limits.recomputations {
                preempt(entry.id)
            } else {
                remove(id: entry.id, keeping: false)
                lost.append(entry.id)
            }
        }
        assert(lost.allSatisfy { requests[$0] == nil }, "who is given up is gone")
        return lost
    }

    /// True when the entry was planned for the memory that its request still has; it may be planned again then.
    private mutating func leaveStep(_ entry: StepEntry) -> Bool {
        guard requests[entry.id]?.reservation?.generation == entry.reservation.generation else { return false }
        precondition(self[entry.id].isInFlight, "request \(entry.id) leaves a step that it is not in")
        self[entry.id].isInFlight = false
        return true
    }

    /// The id of a token that a step made known, or that came with a received state. False when the request is gone.
    public mutating func append(_ token: UInt32, to id: UInt64) -> Bool {
        guard requests[id] != nil else { return false }
        self[id].request.append(token)
        return true
    }

    // MARK: It ends

    /// Forgets a request. What a step or transfer still reaches goes into quarantine until that is over.
    @discardableResult
    public mutating func remove(id: UInt64) -> ReleaseOutcome? { remove(id: id, keeping: limits.keepsPrefixes) }

    @discardableResult
    private mutating func remove(id: UInt64, keeping: Bool) -> ReleaseOutcome? {
        guard let scheduled = requests.removeValue(forKey: id) else { return nil }
        claimedTokens -= claim(scheduled.request)
        precondition(claimedTokens >= 0, "request \(id) gives back more than it claimed")
        queue.leave(id)
        computing.removeAll { $0 == id }
        guard var reservation = scheduled.reservation else { return nil }
        guard keeping, isWorthKeeping(scheduled, reservation), pools.keep(&reservation, tokens: scheduled.computed)
        else {
            dropCopies(to: reservation)
            return pools.release(reservation)
        }
        let tokens = Array(scheduled.request.tokens[..<scheduled.computed])
        let isNew = prefixes.insert(tokens, salt: scheduled.request.cacheSalt, reservation)
        precondition(isNew, "request \(id) is longer than what was kept of it")
        return .kept
    }

    /// True when a request's memory holds the state after its computed tokens, which is not kept yet, and nobody writes there.
    private func isWorthKeeping(_ scheduled: Scheduled, _ reservation: Reservation) -> Bool {
        let (request, computed) = (scheduled.request, scheduled.computed)
        guard scheduled.phase == .computing || scheduled.phase == .handingOut, !scheduled.isInFlight,
            computed <= request.tokens.count, !copies.contains(where: { $0.slots.to == reservation.slot })
        else { return false }
        return computed > prefixes.match(request.tokens, limit: computed, salt: request.cacheSalt).tokens
    }

    /// Nobody goes on from what would have been copied there.
    private mutating func dropCopies(to reservation: Reservation) {
        for copy in copies where copy.slots.to == reservation.slot { ended(copy) }
        copies.removeAll { $0.slots.to == reservation.slot }
        assert(
            !copies.contains { $0.slots.from == reservation.slot }, "who gives its memory up is copied in its own step")
    }

    /// Nothing is sent or written through the transfer any more. Frees quarantined memory; false when it had ended.
    @discardableResult
    public mutating func endTransfer(_ transfer: Hold) -> Bool { pools.end(transfer) }

    /// What happened since the last call.
    public mutating func takeEvents() -> [SchedulerEvent] {
        defer { events.removeAll() }
        return events
    }

    // MARK: Figures

    /// Recurrent slots for requests; those beyond are for what is kept.
    public var requestSlots: Int { pools.slotCount - limits.snapshots }

    /// A request that is here, with the tokens that are known.
    public func request(_ id: UInt64) -> Request? { requests[id]?.request }
    /// True when a request is here, whatever it waits for.
    public func holds(_ id: UInt64) -> Bool { requests[id] != nil }
    /// Requests that are here.
    public var requestCount: Int { requests.count }
    /// Requests that wait for memory.
    public var waitingCount: Int { queue.count }
    /// Requests that hold memory.
    public var runningCount: Int { requests.count - queue.count }
    /// True when any request is here.
    public var hasWork: Bool { !requests.isEmpty }
    /// Time at which the next waiting request expires.
    public var nextExpiry: UInt64? { queue.nextEnd }
    /// How full the instance is.
    public var load: SchedulerLoad {
        SchedulerLoad(
            waiting: queue.count, receiving: requests.values.count { $0.phase == .receiving },
            computing: computing.count, handingOut: requests.values.count { $0.phase == .handingOut },
            slots: pools.slots, pages: pools.pages, preemptions: preemptions, prefixHitTokens: hitTokens,
            prefixSnapshots: prefixes.count, prefixEvictions: prefixes.evictions)
    }
}
