import DeploymentModel
import Scheduling

/// A slice as it goes.
struct RunningSlice {
    var slice: ServingSlice
    /// The step it computes.
    private(set) var step: RankGroup.Step?
    /// When that ends, nanoseconds; nil while it has nothing to do.
    private(set) var endsAt: UInt64?
    /// When it stops waiting for more requests and plans its first step, nanoseconds.
    private(set) var gathersUntil: UInt64?
    var statistics: SliceStatistics
    /// By rank.
    var links: [TransferLink]
    private var span = StepSpan()

    init(_ slice: ServingSlice) {
        self.slice = slice
        statistics = SliceStatistics(slice)
        links = slice.link.map { Array(repeating: $0, count: slice.group.rankCount) } ?? []
    }

    /// When something happens here next.
    var nextTime: UInt64? { endsAt ?? gathersUntil }

    /// True when it has work and nothing keeps it from planning a step; false while it waits for more to come.
    mutating func isReady(at now: UInt64) -> Bool {
        guard endsAt == nil, slice.group.hasWork else {
            gathersUntil = nil
            return false
        }
        let limit = slice.group.limits.gatherMicroseconds
        guard limit > 0 else { return true }
        let until = gathersUntil ?? now + limit * 1000
        gathersUntil = until > now ? until : nil
        return until <= now
    }

    mutating func begin(_ step: RankGroup.Step, _ cost: StepCost, at now: UInt64) {
        self.step = step
        gathersUntil = nil
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
        statistics.links = links
        statistics.nanoseconds = end
        statistics.usedAtEnd = slice.group.schedulers.reduce(0) { $0 + $1.pools.slotsInUse + $1.pools.pagesInUse }
        return statistics
    }
}
