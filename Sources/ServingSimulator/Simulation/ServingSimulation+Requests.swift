import LoadTesting
import Scheduling
import Serving
import StatePools

/// What happens to requests: placement, memory, tokens, hand-over.
extension ServingSimulation {
    mutating func perform(_ event: Event) {
        switch event {
        case .arrival(let index): arrive(index)
        case .handedOver(let index): handedOver(index)
        }
    }

    private mutating func arrive(_ index: Int) {
        guard let request = requests[index] else { return }
        let spec = Request(id: UInt64(index), promptCount: request.inputTokens, maximumTokens: request.outputTokens)
        switch placement.submit(spec, now: microseconds) {
        case .admitted(let place): start(index, place)
        case .deferred: break
        case .rejected(let refusal): fail(index, "rejected", refusal.description)
        }
    }

    mutating func pollPlacement() {
        for action in placement.poll(now: microseconds) {
            switch action {
            case .place(let id, let place): start(Int(id), place)
            case .expired(let id, let reason): fail(Int(id), "no room in time", reason.description)
            case .failed(let id, let reason), .overBudget(let id, let reason): fail(Int(id), "unavailable", reason)
            case .restart, .retired: break
            }
        }
    }

    private mutating func fail(_ index: Int, _ kind: String, _ sentence: String) {
        end(index, .failed(CompletionFailure(kind, sentence)))
    }

    private mutating func start(_ index: Int, _ place: Placement) {
        requests[index]?.placement = place
        submit(index, to: place.decode, part: place.isColocated ? .both : .decode)
    }

    /// Hands a request, or a part of it, to a slice.
    private mutating func submit(_ index: Int, to rank: Int, part: Part) {
        guard let request = requests[index] else { return }
        // What was generated before a preemption is known: the prompt's last row need not be sampled again.
        let wanted = part != .prefill ? request.outputTokens : request.generated > 0 ? 0 : 1
        let spec = Request(
            id: UInt64(index), promptCount: request.inputTokens, maximumTokens: wanted, part: part)
        operations.submissions += 1
        if case .rejected(let refusal) = running[rank].slice.group.submit(spec, now: microseconds) {
            return fail(index, "rejected", refusal.description)
        }
        running[rank].wake(at: now)
        takeEvents(rank)
    }

    /// Passes on what a slice's schedulers decided outside of steps.
    mutating func takeEvents(_ rank: Int) {
        for event in running[rank].slice.group.takeEvents() {
            switch event {
            case .admitted(let id, _, let transfer): admitted(Int(id), rank, transfer)
            case .expired(let id): fail(Int(id), "no memory in time", "the request waited too long for memory")
            case .preempted: running[rank].statistics.preemptions += 1
            case .promptComplete: break
            }
        }
    }

    private mutating func admitted(_ index: Int, _ rank: Int, _ transfer: Hold?) {
        guard let transfer, let place = requests[index]?.placement else { return }
        guard rank == place.decode else {
            requests[index]?.outgoing = transfer
            return
        }
        requests[index]?.incoming = transfer
        submit(index, to: place.prefill, part: .prefill)
    }

    private mutating func handedOver(_ index: Int) {
        guard let request = requests[index], let place = request.placement, let incoming = request.incoming else {
            return
        }
        releasePrompt(UInt64(index), place.prefill, request.outgoing)
        requests[index]?.outgoing = nil
        requests[index]?.incoming = nil
        guard running[place.decode].slice.group.received(id: UInt64(index), transfer: incoming) else { return }
        running[place.decode].wake(at: now)
        if request.generated == 0 { deliver(index) }
    }

    /// One more token reaches the client.
    mutating func deliver(_ index: Int) {
        let time = microseconds
        guard let placed = requests[index]?.take(at: time) else { return }
        progress.tokens += 1
        if placed.generated == 1, let attempt = placed.attempt {
            placement.firstToken(id: UInt64(index), attempt: attempt)
        }
        if let outcome = placed.outcome { end(index, outcome) }
    }
}
