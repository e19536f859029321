import DeploymentModel
import LoadTesting
import Scheduling
import ServingSimulator

/// A step of fixed time, and a time per row.
struct LinearCosts: StepCosting {
    var step = 1_000_000_000
    var promptRow = 10_000_000
    var decodeRow = 20_000_000

    mutating func cost(of work: StepWork) -> StepCost {
        var cost = StepCost()
        // The slowest rank decides, as ranks go in lockstep.
        for component in [Component.linearPrefill, .latentDecode] {
            let rows =
                work.ranks.map { groups in
                    groups.filter { $0.isPrefill == (component == .linearPrefill) }.reduce(0) { $0 + $1.rows }
                }.max() ?? 0
            cost[component] = Int64(rows * (component == .linearPrefill ? promptRow : decodeRow))
        }
        cost[.host] = Int64(step)
        return cost
    }
}

/// A colocated slice of `ranks` ranks under `load`.
func colocated(
    _ load: ServingLoad, ranks: Int = 2, slots: Int = 8, pages: Int = 400, policy: StepPolicy = .prefillFirst,
    timeline: Int = 0
) -> ServingScenario {
    ServingScenario(
        slices: [
            ServingSlice(
                name: "all", group: group(ranks: ranks, slots: slots, pages: pages, policy: policy),
                costs: LinearCosts())
        ], load: load, timelineLimit: timeline)
}

extension ServingScenario {
    mutating func gather(microseconds: UInt64) {
        var limits = slices[0].group.limits
        limits.gatherMicroseconds = microseconds
        let group = slices[0].group
        slices[0].group = Ranks(
            limits: limits, ranks: group.rankCount, slotCount: group.slotCount / group.rankCount,
            pageCount: group.pageCount / group.rankCount)
    }
}

/// Prefill and decode on slices of their own.
func disaggregated(_ load: ServingLoad, slots: Int = 8, pages: Int = 400, link: TransferLink) -> ServingScenario {
    ServingScenario(
        slices: [
            ServingSlice(
                name: "prefill", part: .prefill,
                group: group(ranks: 2, slots: slots, pages: pages, policy: .prefillFirst), costs: LinearCosts(),
                link: link),
            ServingSlice(
                name: "decode", part: .decode,
                group: group(ranks: 2, slots: slots, pages: pages, policy: .prefillFirst), costs: LinearCosts()),
        ], load: load)
}

private func group(ranks: Int, slots: Int, pages: Int, policy: StepPolicy) -> Ranks {
    var limits = SchedulerLimits(rowsPerStep: 256 + slots, prefillChunk: 256, running: slots, waiting: 4096)
    limits.stepPolicy = policy
    return Ranks(limits: limits, ranks: ranks, slotCount: slots, pageCount: pages)
}

/// A closed loop of random lengths.
func closedLoop(
    _ count: Int, input: Int = 512, output: Int = 32, ratio: Double = 1, concurrency: Int = 8, cancels: Double = 0,
    seed: UInt64 = 1
) -> ServingLoad {
    ServingLoad(
        workload: RandomWorkload(
            count: count, content: .ids(below: 256), input: LengthRange(input, ratio: ratio),
            output: LengthRange(output, ratio: ratio), seed: seed),
        due: Array(repeating: 0, count: count), limit: ConcurrencyLimit(concurrency),
        cancellation: CancellationPlan(rate: cancels, seed: seed))
}
