import Serving

/// The single controller of all attention instances: it decides whether a request may enter and where it runs, from one
/// ledger of what it has placed. A value: events in, actions out, time as an argument.
///
/// A request takes a slot and tokens on its decode instance, for prompt and expected growth, until it is over, and on its
/// prefill instance, for the prompt, until its first token is there. Instances with both parts compute both themselves.
/// What does not fit waits; what waits blocks nobody whom another instance can take.
public struct PlacementController: Sendable {
    /// What is kept of a request until it is over.
    private struct Placed: Sendable {
        let request: Request
        let prefix: [UInt64]
        let sequence: UInt64
        var placement: Placement?
        var isPrefilling = false
        /// True once its client has something of the answer.
        var hasBegun = false
        var restarts = 0
        var avoided: Int?
    }

    /// The limits in force.
    public let limits: PlacementLimits
    /// How instances are chosen.
    public let policy: PlacementPolicy
    private var ledger: InstanceLedger
    private var requests: [UInt64: Placed] = [:]
    private var queue: AdmissionQueue<PlacementDeferral>
    private var pending: [PlacementAction] = []
    private var prefixes: PrefixTable
    private var retries: RetryBudget
    private var nextSequence: UInt64 = 0
    private var lastPoll: UInt64 = 0
    /// When a part was first found to have nobody to place on.
    private var outages: [Part: UInt64] = [:]

    /// A controller without instances.
    public init(limits: PlacementLimits = PlacementLimits(), policy: PlacementPolicy = .leastLoaded) {
        self.limits = limits
        self.policy = policy
        ledger = InstanceLedger(breaker: limits.breaker)
        queue = AdmissionQueue(passes: limits.passesOver, looks: 128)
        prefixes = PrefixTable(limit: limits.prefixes)
        retries = RetryBudget(limits: limits.retries)
    }

    // MARK: A request comes

    /// Takes a request in, or says why not. Ask `poll` afterwards for what else may have changed.
    ///
    /// - prefix: hashes of its prompt's leading blocks, the first block first; see `PrefixHash`.
    public mutating func submit(_ request: Request, prefix: [UInt64] = [], now: UInt64) -> PlacementAnswer {
        if let refusal = refusal(of: request) { return .rejected(refusal) }
        requests[request.id] = Placed(request: request, prefix: prefix, sequence: nextSequence)
        nextSequence += 1
        wait(request.id, now: now)
        placeWaiting(now: now)
        if let placement = requests[request.id]?.placement {
            pending.removeAll { $0 == .place(id: request.id, placement) }
            return .admitted(placement)
        }
        guard let reason = queue.reason(of: request.id) else {
            preconditionFailure("request \(request.id) is neither placed nor waiting")
        }
        guard queue.count <= limits.waiting else {
            forget(request.id)
            return .rejected(reason.isOutage ? .outage(reason) : .queueFull(limit: limits.waiting))
        }
        return .deferred(reason)
    }

    private func refusal(of request: Request) -> PlacementRefusal? {
        guard requests[request.id] == nil else { return .duplicate(request.id) }
        guard request.promptCount > 0, request.maximumTokens > 0 else {
            return .invalid("a request needs prompt tokens and max_tokens above 0")
        }
        for (part, tokens) in [(Part.decode, request.mostTokens), (.prefill, request.promptCount)] {
            let limit = ledger.largest(part)
            // Where nobody is known yet, only what no instance could hold is refused.
            guard Block.up(tokens) > limit ?? (.max / Block.tokens * Block.tokens - 1) else { continue }
            return .neverFits(tokens: tokens, limit: limit ?? 0)
        }
        return nil
    }

    /// Queues a request that is here, from now on.
    private mutating func wait(_ id: UInt64, now: UInt64) {
        guard let placed = requests[id] else { preconditionFailure("request \(id) waits and is not here") }
        queue.enter(
            placed.request, sequence: placed.sequence, wasIn: placed.restarts > 0,
            expires: later(now, limits.waitMicroseconds), because: .behindOthers)
    }

    // MARK: It is placed

    /// Places what fits, in order.
    private mutating func placeWaiting(now: UInt64) {
        var missed: [Part: Int] = [:]
        var pass = queue.pass()
        while let id = queue.next(&pass) {
            do throws(PlacementDeferral) {
                try place(id, now: now, missed: &missed)
                queue.admit(&pass)
            } catch {
                queue.deny(&pass, because: error, ends: outageEnd(id, error, now: now))
            }
        }
    }

    /// A request of which nothing was answered waits only as long as the outage has not lasted too long for all of them.
    private mutating func outageEnd(_ id: UInt64, _ reason: PlacementDeferral, now: UInt64) -> UInt64? {
        guard let part = reason.outage else { return nil }
        let began = outages[part] ?? now
        outages[part] = began
        return requests[id]?.hasBegun == true
            ? later(now, limits.begunOutageMicroseconds) : later(began, limits.outageMicroseconds)
    }

    /// Throws why the request cannot be placed.
    private mutating func place(
        _ id: UInt64, now: UInt64, missed: inout [Part: Int]
    ) throws(PlacementDeferral) {
        guard var placed = requests[id] else { preconditionFailure("request \(id) waits and is not here") }
        let tokens = decodeTokens(placed.request)
        let decode = try choose(
            .decode, for: placed, tokens: tokens, whole: Block.up(placed.request.mostTokens), now: now, missed: &missed)
        var prefill = decode
        if ledger[decode]?.description.part == .decode {
            let prompt = Block.up(placed.request.promptCount)
            prefill = try choose(.prefill, for: placed, tokens: prompt, whole: prompt, now: now, missed: &missed)
        }
        let placement = Placement(prefill: prefill, decode: decode, attempt: placed.restarts)
        placed.placement = placement
        placed.isPrefilling = true
        requests[id] = placed
        if placed.restarts == 0 { retries.placed(now: now) }
        ledger.charge(decode, 1, tokens: tokens)
        if !placement.isColocated { ledger.charge(prefill, 1, tokens: Block.up(placed.request.promptCount)) }
        ledger.sent(to: placement, now: now)
        prefixes.record(placed.prefix, instance: prefill)
        pending.append(.place(id: id, placement))
    }

    /// The instance that takes a part of a request; throws why none does. `missed` holds, per part, the fewest tokens for
    /// which none had room in this pass: more cannot have any either.
    private func choose(
        _ part: Part, for placed: Placed, tokens: Int, whole: Int, now: UInt64, missed: inout [Part: Int]
    ) throws(PlacementDeferral) -> Int {
        if let fewest = missed[part], tokens >= fewest { throw .allFull(part) }
        var fitting: [InstanceLedger.Instance]
        do throws(PlacementDeferral) {
            fitting = try ledger.candidates(part, tokens: tokens, whole: whole, now: now)
        } catch {
            if error == .allFull(part) { missed[part] = tokens }
            throw error
        }
        if let avoided = placed.avoided, fitting.count > 1 { fitting.removeAll { $0.id == avoided } }
        guard let emptiest = fitting.min(by: { $0.isEmptier(than: $1) }) else { throw .allFull(part) }
        switch policy {
        case .leastLoaded: return emptiest.id
        case .roundRobin: return (fitting.min { ($0.lastPlaced, $0.id) < ($1.lastPlaced, $1.id) } ?? emptiest).id
        case .prefixAffine:
            let known = prefixes.longest(placed.prefix) { id in fitting.contains { $0.id == id } }
            let home = known.flatMap { ledger[$0.instance] } ?? emptiest
            return home.share <= emptiest.share + limits.affinitySlack ? home.id : emptiest.id
        }
    }

    /// What there is to do now. Call it after every other call, and at `nextWake`.
    public mutating func poll(now: UInt64) -> [PlacementAction] {
        lastPoll = now
        expireWaiting(now: now)
        placeWaiting(now: now)
        // Some may only now have learned that what they need has been gone for long.
        expireWaiting(now: now)
        for id in ledger.retired {
            ledger.forget(id)
            prefixes.forget(instance: id)
            pending.append(.retired(instance: id))
        }
        defer { pending.removeAll() }
        return pending
    }

    private mutating func expireWaiting(now: UInt64) {
        for waiting in queue.expire(now: now) {
            forget(waiting.id)
            pending.append(.expired(id: waiting.id, waiting.reason))
        }
    }

    // MARK: It runs, and ends

    /// A request's first token is there: its prefill instance has no part in it any more.
    public mutating func firstToken(id: UInt64, attempt: Int) {
        guard var placed = requests[id], let placement = placed.placement, placement.attempt == attempt,
            placed.isPrefilling
        else { return }
        placed.isPrefilling = false
        placed.hasBegun = true
        requests[id] = placed
        ledger.update(placement.prefill) { $0.breaker.succeeded() }
        guard !placement.isColocated else { return }
        ledger.update(placement.decode) { $0.breaker.succeeded() }
        ledger.charge(placement.prefill, -1, tokens: -Block.up(placed.request.promptCount))
    }

    /// A request is over, finished or given up by its client.
    public mutating func ended(id: UInt64) { forget(id) }

    /// A request's stream broke by the fault of `instance`, if that is known. It waits at the front and is placed again,
    /// on others than that one and `avoided` if there are any, unless it was too often or the budget of retries is spent.
    /// A report of an earlier attempt is ignored.
    public mutating func broke(
        id: UInt64, attempt: Int, instance: Int?, avoiding avoided: Int? = nil, because: String, now: UInt64
    ) {
        guard requests[id]?.placement?.attempt == attempt else { return }
        if let instance { ledger.update(instance) { $0.breaker.failed(now: now) } }
        restart(id, avoiding: instance ?? avoided, because: because, now: now)
    }

    private mutating func restart(_ id: UInt64, avoiding instance: Int?, because: String, now: UInt64) {
        guard var placed = requests[id], placed.placement != nil else { return }
        takeBack(placed)
        requests[id] = nil
        guard placed.restarts < limits.restarts else { return pending.append(.failed(id: id, because: because)) }
        guard retries.spend(now: now, burst: ledger.largestHolding) else {
            return pending.append(.overBudget(id: id, because: because))
        }
        placed.placement = nil
        placed.restarts += 1
        placed.avoided = instance
        requests[id] = placed
        wait(id, now: now)
        pending.append(.restart(id: id, because: because))
    }

    private mutating func forget(_ id: UInt64) {
        guard let placed = requests.removeValue(forKey: id) else { return }
        queue.leave(id)
        takeBack(placed)
    }

    /// Takes a request off its instances. One that ends before its first token says nothing about them: the one at fault
    /// has been told before, and its breaker is no longer half open.
    private mutating func takeBack(_ placed: Placed) {
        pending.removeAll { if case .place(id: placed.request.id, _) = $0 { true } else { false } }
        guard let placement = placed.placement else { return }
        if placed.isPrefilling {
            for instance in [placement.prefill, placement.decode] {
                ledger.update(instance) { $0.breaker.withdrawn() }
            }
        }
        ledger.charge(placement.decode, -1, tokens: -decodeTokens(placed.request))
        guard placed.isPrefilling, !placement.isColocated else { return }
        ledger.charge(placement.prefill, -1, tokens: -Block.up(placed.request.promptCount))
    }

    // MARK: Instances come and go

    /// An instance is there, or there again. A newer generation means that it was restarted and holds nothing of what was
    /// placed on it. An older one is a late note: false, and nothing changes.
    public mutating func join(_ description: InstanceDescription, now: UInt64) -> Bool {
        guard description.capacity.requests > 0, description.capacity.tokens > 0 else { return false }
        let wasPresent = ledger[description.id]?.isPresent ?? false
        switch ledger.join(description) {
        case .late: return false
        case .known: break
        case .restarted:
            restartVictims(of: description.id, because: "\(description.name) was restarted", now: now)
            prefixes.forget(instance: description.id)
        }
        if !wasPresent { outages.removeAll() }
        return true
    }

    /// Which service an instance needs and cannot call, and why; nil when it can call all. It gets no further request
    /// meanwhile; what runs on it is left there.
    public mutating func chain(instance: Int, generation: UInt64, fault: String?) {
        guard let known = ledger[instance], known.description.generation == generation, known.fault != fault
        else { return }
        ledger.update(instance) { $0.fault = fault }
        if fault == nil { outages.removeAll() }
    }

    /// An instance takes no more requests; `retired` says when it holds none.
    public mutating func leave(instance: Int) { ledger.update(instance) { $0.isLeaving = true } }

    /// An instance is gone: its requests start again elsewhere. A report of an earlier generation is ignored.
    public mutating func lost(instance: Int, generation: UInt64, because: String, now: UInt64) {
        guard let known = ledger[instance], known.isPresent, known.description.generation == generation
        else { return }
        ledger.update(instance) {
            $0.isPresent = false
            $0.breaker.failed(now: now)
        }
        restartVictims(of: instance, because: because, now: now)
        prefixes.forget(instance: instance)
        if known.isLeaving { ledger.forget(instance) }
    }

    /// What an instance holds now, memory in quarantine above all: that counts as taken.
    public mutating func holds(instance: Int, generation: UInt64, _ capacity: Capacity) {
        guard ledger[instance]?.description.generation == generation else { return }
        ledger.update(instance) { $0.description.capacity = capacity }
    }

    /// A decode instance takes all its requests with it, a prefill instance those whose prompt was not through.
    private mutating func restartVictims(of instance: Int, because: String, now: UInt64) {
        let victims = requests.values.filter { placed in
            guard let placement = placed.placement else { return false }
            return placement.decode == instance || (placed.isPrefilling && placement.prefill == instance)
        }
        for victim in victims.sorted(by: { $0.sequence < $1.sequence }) {
            restart(victim.request.id, avoiding: instance, because: because, now: now)
        }
    }

    // MARK: Figures

    /// Requests that wait.
    public var waitingCount: Int { queue.count }
    /// Requests that are placed.
    public var placedCount: Int { requests.count - queue.count }
    /// Requests that were given up because the budget of retries was spent.
    public var retriesRefused: UInt64 { retries.refusals }
    /// Requests that could be placed again now.
    public func retriesLeft(now: UInt64) -> Int { retries.remaining(now: now, burst: ledger.largestHolding) }
    /// Where a request runs; nil while it waits.
    public func placement(of id: UInt64) -> Placement? { requests[id]?.placement }
    /// True for an instance that joined and has not gone.
    public func knows(_ instance: Int) -> Bool { ledger[instance] != nil }
    /// All instances, in order.
    public var loads: [InstanceLoad] { ledger.loads }
    /// Why no request, however small, could be placed now, but for circuit breakers; nil when one could.
    public var outage: PlacementDeferral? { ledger.outage }
    /// Tokens of prompt and answer that one request may have on the largest instance that decodes; nil when none is known.
    public var largestRequest: Int? { ledger.largest(.decode) }

    /// When `poll` has something to do at the earliest, though nothing else happens; always after the last `poll`.
    public var nextWake: UInt64? {
        let probes = queue.isEmpty ? [] : ledger.instances.values.compactMap(\.breaker.opensUntil)
        return (probes.filter { $0 > lastPoll } + [queue.nextEnd(after: lastPoll)].compactMap { $0 }).min()
    }

    private func decodeTokens(_ request: Request) -> Int {
        let growth = Double(request.maximumTokens) * min(1, max(0, limits.expectedGrowth))
        let expected = min(request.maximumTokens, Int(growth.rounded(.up)), limits.expectedTokens)
        return Block.up(request.promptCount + expected)
    }

    private func later(_ now: UInt64, _ microseconds: UInt64) -> UInt64 {
        let (time, overflow) = now.addingReportingOverflow(microseconds)
        return overflow ? .max : time
    }
}
