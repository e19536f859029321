import DeploymentModel
import Scheduling

/// The slices' steps.
extension ServingSimulation {
    mutating func startIdleSlices() {
        for rank in running.indices where running[rank].isReady(at: now) { beginStep(rank) }
    }

    private mutating func beginStep(_ rank: Int) {
        let step = running[rank].slice.group.planStep(now: microseconds)
        operations.plans += 1
        takeEvents(rank)
        guard !step.isEmpty else { return }
        let cost = running[rank].slice.costs.cost(of: StepWork(step))
        running[rank].begin(step, cost, at: now)
        operations.steps += 1
    }

    mutating func endStep(_ rank: Int) {
        guard let step = running[rank].step else { return }
        let span = running[rank].end(at: now)
        timeline.addStep(span, slice: rank)
        running[rank].slice.group.complete(step, microseconds: max(1, (now - span.start) / 1000))
        for (part, plan) in step.ranks.enumerated() {
            operations.entries += plan.count
            for entry in plan { settle(entry, rank, part) }
        }
        takeEvents(rank)
        beginStep(rank)
    }

    /// What a step's end means for one of its requests, on data-parallel rank `part` of a slice.
    private mutating func settle(_ entry: StepEntry, _ rank: Int, _ part: Int) {
        let index = Int(entry.id)
        guard running[rank].slice.part == .prefill else {
            if entry.samples { deliver(index) }
            return
        }
        guard let request = requests[index] else { return }
        let isComplete = entry.positions.upperBound == request.inputTokens
        guard running[rank].links.indices.contains(part) else {
            if isComplete { events.add(.handedOver(index), at: now) }
            return
        }
        let arrival = running[rank].links[part].send(
            tokens: entry.positions.count, completesPrompt: isComplete, at: now)
        if isComplete { events.add(.handedOver(index), at: arrival) }
    }
}

extension StepWork {
    /// What a planned step computes.
    public init(_ step: Step) {
        self.init(
            ranks: step.ranks.map { plan in
                plan.map { entry in
                    RowGroup(
                        rows: entry.positions.count, context: entry.positions.lowerBound,
                        isPrefill: entry.isPrefill, samples: entry.samples)
                }
            })
    }
}
