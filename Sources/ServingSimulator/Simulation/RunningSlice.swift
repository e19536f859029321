import DeploymentModel
import Scheduling

/// A slice as it goes.
struct RunningSlice {
    var slice: ServingSlice
    /// The step it computes.
    private(set) var step: RankGroup.Step?
    /// When that ends, nanoseconds; nil while it has nothing to do.
    private(set) var endsAt: UInt64?
    var statistics: SliceStatistics
    private var span = StepSpan()

    init(_ slice: ServingSlice) {
        self.slice = slice
        statistics = SliceStatistics(slice)
    }

    mutating func begin(_ step: RankGroup.Step, _ cost: StepCost, at now: UInt64) {
        self.step = step
        let nanoseconds = max(1, UInt64(max(0, cost.total)) / 1000)
        endsAt = now + nanoseconds
        span = StepSpan(step, start: now, end: now + nanoseconds)
        statistics.add(span, cost, slice.group)
    }

    /// The step that ended.
    mutating func end(at now: UInt64) -> StepSpan {
        step = nil
        endsAt = nil
        return span
    }

    func summary(until end: UInt64) -> SliceStatistics {
        var statistics = statistics
        statistics.link = slice.link
        statistics.nanoseconds = end
        statistics.usedAtEnd = slice.group.schedulers.reduce(0) { $0 + $1.pools.slotsInUse + $1.pools.pagesInUse }
        return statistics
    }
}
