/// Until when a peer counts as alive, per key. A peer that is frozen, rather than gone, ends nothing by itself; its
/// lease does.
public struct LeaseTable<Key: Hashable & Comparable & Sendable>: Sendable {
    private var expiries: [Key: UInt64] = [:]

    /// A table without leases.
    public init() {}

    /// Leases held.
    public var count: Int { expiries.count }

    /// Opens or extends a lease to `microseconds` from now. A late heartbeat never shortens one.
    public mutating func extend(_ key: Key, now: UInt64, by microseconds: UInt64) {
        let (end, overflow) = now.addingReportingOverflow(microseconds)
        expiries[key] = max(expiries[key] ?? 0, overflow ? .max : end)
    }

    /// Ends a lease. Harmless when there is none.
    public mutating func drop(_ key: Key) { expiries[key] = nil }

    /// When a lease runs out.
    public subscript(key: Key) -> UInt64? { expiries[key] }

    /// When the first lease runs out.
    public var nextExpiry: UInt64? { expiries.values.min() }

    /// All leases that have run out, in the order of their keys. Looks at every lease: they are in no order of time.
    public func expired(now: UInt64) -> [Key] { expiries.filter { $0.value <= now }.map(\.key).sorted() }
}
