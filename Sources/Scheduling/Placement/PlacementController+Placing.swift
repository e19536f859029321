/// Which waiting request goes where.
extension PlacementController {
    private enum Choice {
        case rank(Int)
        case none(PlacementDeferral)
    }

    /// Waiting requests looked at in one go.
    private static let scan = 128

    /// Places what fits, in order. One that does not fit may be passed over a bounded number of times.
    mutating func placeWaiting(now: UInt64) {
        var blocked: [UInt64] = []
        var missed: [RequestRole: Int] = [:]
        var index = 0
        while index < min(waiting.count, Self.scan) {
            let id = waiting[index]
            guard let reason = place(id, now: now, missed: &missed) else {
                waiting.remove(at: index)
                for other in blocked { requests[other]?.passedOver += 1 }
                if blocked.contains(where: { (requests[$0]?.passedOver ?? 0) >= limits.passesOver }) { return }
                continue
            }
            wait(id, for: reason, now: now)
            guard let request = requests[id], request.passedOver < limits.passesOver else { return }
            blocked.append(id)
            index += 1
        }
    }

    /// A request of which nothing was answered waits only as long as the outage has not lasted too long for all of them.
    private mutating func wait(_ id: UInt64, for reason: PlacementDeferral, now: UInt64) {
        guard let request = requests[id] else { return }
        var ends: UInt64?
        switch reason {
        case .noRank(let role), .brokenChain(let role, _):
            let began = outages[role] ?? now
            outages[role] = began
            ends =
                request.hasBegun
                ? later(now, limits.begunOutageMicroseconds) : later(began, limits.outageMicroseconds)
        case .resting, .allFull, .behindOthers: break
        }
        requests[id]?.wait(for: reason, outageEnds: ends)
    }

    /// Nil when the request was placed, otherwise why not. `missed` holds, per role, the fewest tokens for which no rank
    /// had room in this pass: more cannot have any either.
    private mutating func place(
        _ id: UInt64, now: UInt64, missed: inout [RequestRole: Int]
    ) -> PlacementDeferral? {
        guard let request = requests[id] else { return nil }
        let tokens = decodeTokens(request.spec)
        let decode: Int
        let whole = pageTokens(request.spec.promptTokens + request.spec.maximumTokens)
        switch choose(.decodeOnly, for: request, tokens: tokens, whole: whole, now: now, missed: &missed) {
        case .rank(let rank): decode = rank
        case .none(let deferral): return deferral
        }
        var prefill = decode
        if ranks[decode]?.role == .decodeOnly {
            let tokens = pageTokens(request.spec.promptTokens)
            switch choose(.prefillOnly, for: request, tokens: tokens, whole: tokens, now: now, missed: &missed) {
            case .rank(let rank): prefill = rank
            case .none(let deferral): return deferral
            }
        }
        let placement = Placement(prefill: prefill, decode: decode, attempt: request.restarts)
        requests[id]?.placement = placement
        requests[id]?.isPrefilling = true
        if request.restarts == 0 { retries.placed(now: now) }
        charge(decode, 1, tokens: decodeTokens(request.spec))
        if !placement.isColocated { charge(prefill, 1, tokens: pageTokens(request.spec.promptTokens)) }
        clock += 1
        for rank in [prefill, decode] {
            ranks[rank]?.breaker.sent(now: now)
            ranks[rank]?.lastPlaced = clock
        }
        prefixes.record(request.spec.prefix, rank: prefill)
        pending.append(.place(id: id, placement))
        return nil
    }

    /// - tokens: what is set aside for the request.
    /// - whole: what it may come to take; a rank that could not hold that would refuse it.
    private func choose(
        _ role: RequestRole, for request: Request, tokens: Int, whole: Int, now: UInt64,
        missed: inout [RequestRole: Int]
    ) -> Choice {
        if let fewest = missed[role], tokens >= fewest { return .none(.allFull(role)) }
        if let outage = outage(of: role) { return .none(outage) }
        let well = ranks.values.filter { $0.serves(role) && $0.fault == nil && $0.breaker.lets(now: now) }
        guard !well.isEmpty else { return .none(.resting(role)) }
        var fitting = well.filter { $0.fits(tokens: tokens) && whole <= $0.description.requestTokens }
        if let avoided = request.avoided, fitting.count > 1 { fitting.removeAll { $0.id == avoided } }
        guard let emptiest = fitting.min(by: { $0.isEmptier(than: $1) }) else {
            missed[role] = tokens
            return .none(.allFull(role))
        }
        switch policy {
        case .leastLoaded: return .rank(emptiest.id)
        case .roundRobin:
            let next = fitting.min { ($0.lastPlaced, $0.id) < ($1.lastPlaced, $1.id) }
            return .rank((next ?? emptiest).id)
        case .prefixAffine:
            let known = prefixes.longest(request.spec.prefix) { rank in fitting.contains { $0.id == rank } }
            let home = known.flatMap { ranks[$0.rank] } ?? emptiest
            return .rank(home.share <= emptiest.share + limits.affinitySlack ? home.id : emptiest.id)
        }
    }
}
