import DeploymentModel
import Scheduling

/// A slice as it goes.
struct RunningSlice {
    var slice: ServingSlice
    /// The step it computes.
    private(set) var step: Step?
    /// When that ends, nanoseconds; nil while it has nothing to do.
    private(set) var endsAt: UInt64?
    /// When it stops waiting for more requests and plans its first step, and the latest it may, nanoseconds.
    private var gathering: (until: UInt64, limit: UInt64)?
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
    var nextTime: UInt64? { endsAt ?? gathering?.until }

    /// Something came that may be computed. While it has nothing to do, it waits a little for more.
    mutating func wake(at now: UInt64) {
        guard endsAt == nil else { return }
        let limits = slice.group.limits
        let limit = gathering?.limit ?? now + limits.gatherLimitMicroseconds * 1000
        gathering = (min(limit, now + limits.gatherMicroseconds * 1000), limit)
    }

    /// True once after it was woken and has waited.
    mutating func isReady(at now: UInt64) -> Bool {
        guard let until = gathering?.until, until <= now else { return false }
        gathering = nil
        return true
    }

    mutating func begin(_ step: Step, _ cost: StepCost, at now: UInt64) {
        self.step = step
        gathering = nil
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
