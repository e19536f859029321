/// Equally sized units of one kind, numbered from 1. Unit 0 is padding: rows that belong to nobody point there, so it
/// is never handed out.
///
/// A unit has no state field that could be set wrongly. Its state follows from four counts, and it returns to the
/// free list at the moment the last of them falls to zero, never before.
struct UnitPool: Sendable {
    struct Unit: Sendable {
        /// Stamp of the hand-out; no two hand-outs share one.
        var generation: UInt64 = 0
        /// Live reservations that contain the unit.
        var owners: UInt32 = 0
        /// Kept prefixes that contain the unit.
        var keepers: UInt32 = 0
        /// Released reservations that a step or transfer still holds.
        var guests: UInt32 = 0
        /// Transfers that read or write the unit.
        var transfers: UInt32 = 0
        /// True once content was, or is about to be, written.
        var isWritten = false

        var state: UnitState {
            guard owners > 0 else { return guests > 0 ? .quarantined : keepers > 0 ? .cached : .free }
            guard transfers == 0 else { return .leased }
            return isWritten ? .used : .reserved
        }
    }

    let count: Int
    private(set) var counts: PoolCounts
    private var units: [Unit]
    private var free: [Int]

    init(count: Int) {
        self.count = count
        counts = PoolCounts(free: count)
        units = Array(repeating: Unit(), count: count + 1)
        free = Array((1..<(count + 1)).reversed())
    }

    var freeCount: Int { free.count }

    subscript(index: Int) -> Unit { units[index] }

    /// Hands out a free unit to one owner.
    mutating func take(generation: UInt64) -> Int? {
        guard let index = free.popLast() else { return nil }
        assert(units[index].state == .free, "unit \(index) is on the free list and not free")
        change(index) { unit in
            unit.generation = generation
            unit.owners = 1
            unit.isWritten = false
        }
        return index
    }

    /// Changes a unit's counts; the pool's totals and the free list follow.
    @inline(__always)
    mutating func change(_ index: Int, _ body: (inout Unit) -> Void) {
        assert(index > 0, "padding belongs to nobody")
        let before = units[index].state
        body(&units[index])
        let after = units[index].state
        guard before != after else { return }
        counts[before] -= 1
        counts[after] += 1
        if after == .free { free.append(index) }
    }
}
