/// What one slot or page is doing. Every unit is in exactly one state, derived from who points at it.
public enum UnitState: Int, CaseIterable, Sendable {
    /// Nobody owns it and nothing can still reach it.
    case free
    /// Promised to an owner and not yet written.
    case reserved
    /// Owned and written.
    case used
    /// Owned, and being sent to or received from another instance.
    case leased
    /// Its owner is gone; a step or a transfer may still reach it.
    case quarantined
    /// Holds a prefix that is kept for requests to come, and is free as soon as it is needed.
    case cached
}

/// How many units of one pool are in which state. The six add up to the pool's size; padding is not counted.
public struct PoolCounts: Sendable, Equatable, CustomStringConvertible {
    private var values = SIMD8<Int32>()

    /// `free` units that nobody owns.
    public init(free: Int) { self[.free] = free }

    /// Units in `state`.
    public internal(set) subscript(state: UnitState) -> Int {
        get { Int(values[state.rawValue]) }
        set { values[state.rawValue] = Int32(truncatingIfNeeded: newValue) }
    }

    /// The units of two pools together.
    public static func + (one: PoolCounts, other: PoolCounts) -> PoolCounts {
        var sum = one
        sum.values &+= other.values
        return sum
    }

    /// Units in all states.
    public var total: Int { Int(values.wrappedSum()) }

    /// "free 3, reserved 1, used 2, leased 0, quarantined 0, cached 0".
    public var description: String {
        UnitState.allCases.map { "\($0) \(self[$0])" }.joined(separator: ", ")
    }
}
