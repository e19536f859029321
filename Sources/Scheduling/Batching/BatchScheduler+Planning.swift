/// What the steps of one lockstep group are made of.
enum StepKind: Sendable {
    case mixed, prefill, decode
}

extension StepPolicy {
    /// The next step's kind. A prompt on one rank keeps the decode rows of all ranks waiting: they share the step.
    func kind(hasPrompts: Bool) -> StepKind {
        switch self {
        case .mixed: .mixed
        case .prefillFirst: hasPrompts ? .prefill : .decode
        }
    }
}

/// Which rows the next step computes.
extension BatchScheduler {
    /// A request that could take part in the next step, as it was when planning began.
    struct Candidate: Sendable {
        let id: UInt64
        let priority: Int
        let lastServed: UInt64
        let sequence: UInt64
        let promptTokens: Int
        let computed: Int
        let known: Int

        init(_ request: Request) {
            id = request.spec.id
            priority = request.spec.priority
            lastServed = request.lastServed
            sequence = request.sequence
            promptTokens = request.spec.promptTokens
            computed = request.computed
            known = request.known
        }

        var isPrefilling: Bool { computed < promptTokens }

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

    /// First half of planning a step: lets waiting requests in or go, and sees who could compute.
    mutating func prepareStep(now: UInt64) {
        expire(now: now)
        admit()
        step += 1
        idle.removeAll(keepingCapacity: true)
        var isSorted = true
        for id in computing {
            guard let request = requests[id], !request.isInFlight else { continue }
            let candidate = Candidate(request)
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
            let plan = planDecode(leaving: prompts.isEmpty ? 0 : 64)
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
            let count = min(max(1, limits.replayRows), candidate.known - candidate.computed, rows)
            guard secure(candidate.id, tokens: candidate.computed + count),
                let entry = enter(candidate.id, rows: count)
            else { continue }
            plan.append(entry)
            rows -= count
        }
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
                let left = prompt.promptTokens - prompt.computed - granted[index]
                let block = min(64, left, limits.prefillChunk - granted[index])
                guard block > 0, block <= rows else { continue }
                granted[index] += block
                rows -= block
                isGranting = true
            }
        }
        return zip(prompts, granted).compactMap { prompt, count in enter(prompt.id, rows: count) }
    }

    private mutating func planPromptsInOrder() -> [StepEntry] {
        var rows = min(limits.prefillChunk, limits.rowsPerStep)
        var plan: [StepEntry] = []
        for prompt in idle.filter(\.isPrefilling).sorted(by: { $0.isEarlier(than: $1) }) where rows > 0 {
            let left = prompt.promptTokens - prompt.computed
            // What is cut is cut where a GLA chunk ends.
            let count = left <= rows ? left : rows / 64 * 64
            guard let entry = enter(prompt.id, rows: count) else { continue }
            plan.append(entry)
            rows -= count
        }
        return plan
    }

    /// The request's next `rows` rows as part of the step being planned; nil for none.
    private mutating func enter(_ id: UInt64, rows: Int) -> StepEntry? {
        guard rows > 0, let request = requests[id], request.phase == .computing,
            let reservation = request.reservation, let hold = pools.hold(reservation, for: .step)
        else { return nil }
        let end = request.computed + rows
        pools.markWritten(reservation, tokens: end)
        requests[id]?.join(step)
        return StepEntry(
            id: id, reservation: reservation, positions: request.computed..<end, isPrefill: request.isPrefilling,
            samples: end == request.known, hold: hold)
    }
}
