import StatePools

/// Who holds memory: admission, growth, preemption, and state that comes in or goes out.
extension BatchScheduler {
    /// Waiting requests looked at in one admission; the rest wait for the next.
    private static let admissionScan = 64

    /// The prompt's state has arrived in full; the request decodes from the next step on. Returns false when the request
    /// is not waiting for it: it was cancelled or preempted, and what arrived must be thrown away.
    public mutating func received(id: UInt64, transfer: Hold) -> Bool {
        guard pools.end(transfer), let request = requests[id], request.phase == .receiving,
            request.transfer == transfer, let reservation = request.reservation
        else { return false }
        pools.markWritten(reservation, tokens: request.spec.promptTokens)
        requests[id]?.transfer = nil
        requests[id]?.phase = .computing
        requests[id]?.computed = request.spec.promptTokens
        // The sender sampled the first token, unless it and more were known before.
        requests[id]?.known = max(request.known, request.spec.promptTokens + 1)
        computing.append(id)
        return true
    }

    /// Nothing is sent or written through the transfer any more. Frees quarantined memory; false when it had ended.
    @discardableResult
    public mutating func endTransfer(_ transfer: Hold) -> Bool { pools.end(transfer) }

    /// Drops waiting requests whose time is over.
    public mutating func expire(now: UInt64) {
        for id in waiting.filter({ (requests[$0]?.expires ?? 0) <= now }) {
            remove(id: id)
            events.append(.expired(id: id))
        }
    }

    func refusal(of spec: ScheduledRequest) -> AdmissionRefusal? {
        guard requests[spec.id] == nil else { return .duplicate(spec.id) }
        guard spec.promptTokens > 0, spec.maximumTokens > 0,
            (0..<max(1, spec.maximumTokens)).contains(spec.replayTokens)
        else {
            return .invalid(
                "a request needs prompt tokens, and max_tokens above what is replayed: \(spec.promptTokens) prompt, "
                    + "\(spec.maximumTokens) at most, \(spec.replayTokens) replayed")
        }
        let capacity = pools.pageCount * pools.pageTokens
        let generated = spec.role == .prefillOnly ? 0 : spec.maximumTokens
        let (total, overflow) = spec.promptTokens.addingReportingOverflow(generated)
        guard !overflow, total <= capacity, pools.slotCount > 0 else {
            return .neverFits(tokens: overflow ? .max : total, limit: capacity)
        }
        return nil
    }

    mutating func enqueue(_ id: UInt64) {
        guard let request = requests[id] else { return }
        let place = waiting.firstIndex { requests[$0].map(request.precedes) ?? false }
        waiting.insert(id, at: place ?? waiting.endIndex)
    }

    /// Admits what fits, in order. One that does not fit may be passed over a bounded number of times.
    mutating func admit() {
        guard !waiting.isEmpty else { return }
        var receiving = requests.values.count { $0.phase == .receiving }
        var blocked: [UInt64] = []
        var index = 0
        while index < min(waiting.count, Self.admissionScan) {
            let id = waiting[index]
            guard let reason = tryAdmit(id, &receiving) else {
                waiting.remove(at: index)
                for other in blocked { requests[other]?.passedOver += 1 }
                if blocked.contains(where: { (requests[$0]?.passedOver ?? 0) >= limits.passesOver }) { return }
                continue
            }
            requests[id]?.deferral = reason
            guard let request = requests[id], request.passedOver < limits.passesOver else { return }
            blocked.append(id)
            index += 1
        }
    }

    /// Nil when the request was given memory, otherwise why not.
    private mutating func tryAdmit(_ id: UInt64, _ receiving: inout Int) -> Deferral? {
        guard let request = requests[id] else { return nil }
        let isReceiving = request.spec.role == .decodeOnly
        let limit = isReceiving ? limits.receiving : limits.running
        guard (isReceiving ? receiving : computing.count) < limit else { return .atLimit(limit) }
        let reservation: Reservation
        do throws(ReservationRefusal) {
            reservation = try pools.reserve(tokens: promise(request), for: .request(id))
        } catch {
            return .noMemory(error)
        }
        let transfer = request.spec.role == .both ? nil : pools.hold(reservation, for: .transfer)
        requests[id]?.reservation = reservation
        requests[id]?.transfer = transfer
        requests[id]?.phase = isReceiving ? .receiving : .computing
        if isReceiving { receiving += 1 } else { computing.append(id) }
        events.append(.admitted(id: id, reservation, transfer: transfer))
        return nil
    }

    /// Tokens to reserve for: the known ones and the expected growth. Who was preempted once is promised everything, up to
    /// the limit of what is expected.
    private func promise(_ request: Request) -> Int {
        guard request.spec.role != .prefillOnly else { return request.spec.promptTokens }
        let most = request.spec.promptTokens + request.spec.maximumTokens
        let left = Double(max(0, most - request.known))
        let share = request.preemptions > 0 ? 1 : min(1, max(0, limits.expectedGrowth))
        let growth = min(Int((left * share).rounded(.up)), limits.expected(afterPreemptions: request.preemptions))
        return min(most, request.known + growth)
    }

    /// Sees to it that a request has pages for `tokens` tokens. When none are free, those that it precedes give up what
    /// they were promised and have not written, then all they have, the last first. False when it has to wait.
    mutating func secure(_ id: UInt64, tokens: Int) -> Bool {
        guard let request = requests[id], request.phase == .computing else { return false }
        if grow(id, tokens: tokens) { return true }
        let others = computing.compactMap { requests[$0] }
            .filter { request.precedes($0) && $0.transfer == nil }
            .sorted { $1.precedes($0) }
        for other in others {
            guard var reservation = other.reservation, pools.trim(&reservation, keeping: other.known) > 0
            else { continue }
            requests[other.spec.id]?.reservation = reservation
            if grow(id, tokens: tokens) { return true }
        }
        for other in others where !other.isInFlight {
            preempt(other.spec.id)
            if grow(id, tokens: tokens) { return true }
        }
        return false
    }

    private mutating func grow(_ id: UInt64, tokens: Int) -> Bool {
        guard var reservation = requests[id]?.reservation else { return false }
        guard pools.pages(forTokens: tokens) > reservation.pages.count else { return true }
        do throws(ReservationRefusal) { try pools.grow(&reservation, tokens: tokens) } catch { return false }
        requests[id]?.reservation = reservation
        return true
    }

    /// Takes a request's memory and puts it back to the front of the queue; its tokens are replayed later.
    mutating func preempt(_ id: UInt64) {
        guard var request = requests[id], let reservation = request.reservation else { return }
        _ = pools.release(reservation)
        computing.removeAll { $0 == id }
        request.reservation = nil
        request.phase = .waiting
        request.computed = 0
        request.passedOver = 0
        request.preemptions += 1
        preemptions += 1
        requests[id] = request
        enqueue(id)
        events.append(.preempted(id: id))
    }
}
