import Synchronization

/// A number that only grows. Any thread may use it.
public final class Counter: Sendable {
    private let count = Atomic<UInt64>(0)

    /// Adds to the number.
    public func increment(by amount: UInt64 = 1) { count.wrappingAdd(amount, ordering: .relaxed) }

    /// The number now.
    public var value: UInt64 { count.load(ordering: .relaxed) }
}

/// A number that goes up and down. Any thread may use it.
public final class Gauge: Sendable {
    private let bits = Atomic<UInt64>(0)

    /// Replaces the number.
    public func set(_ value: Double) { bits.store(value.bitPattern, ordering: .relaxed) }

    /// Adds to the number, or takes from it.
    public func add(_ amount: Double) {
        var old = bits.load(ordering: .relaxed)
        while true {
            let new = (Double(bitPattern: old) + amount).bitPattern
            let (exchanged, found) = bits.weakCompareExchange(expected: old, desired: new, ordering: .relaxed)
            if exchanged { return }
            old = found
        }
    }

    /// The number now.
    public var value: Double { Double(bitPattern: bits.load(ordering: .relaxed)) }
}

/// Counts observations by size. Any thread may use it.
public final class Histogram: Sendable {
    /// What a histogram has counted.
    public struct Snapshot: Sendable, Equatable {
        /// Upper bounds of the buckets, ascending, inclusive; beyond the last is one more bucket.
        public let bounds: [Double]
        /// Observations per bucket (not cumulative), one more than bounds.
        public internal(set) var counts: [UInt64]
        /// Sum of the observations.
        public internal(set) var sum: Double

        /// Observations altogether.
        public var count: UInt64 { counts.reduce(0, &+) }
    }

    /// Most buckets of a histogram; further bounds are left out.
    public static let maximumBuckets = 64
    private let state: Mutex<Snapshot>

    /// A histogram with these upper bounds, sorted; bounds that are not finite are left out.
    public init(bounds: [Double]) {
        let kept = Set(bounds.filter(\.isFinite)).sorted().prefix(Self.maximumBuckets)
        state = Mutex(
            Snapshot(bounds: Array(kept), counts: [UInt64](repeating: 0, count: kept.count + 1), sum: 0))
    }

    /// `count` bounds from `start` on, each `factor` times the one before.
    public static func exponentialBounds(start: Double, factor: Double, count: Int) -> [Double] {
        var bound = start
        return (0..<min(max(0, count), maximumBuckets)).map { _ in
            defer { bound *= factor }
            return bound
        }
    }

    /// Counts an observation; NaN is ignored.
    public func observe(_ value: Double) {
        guard !value.isNaN else { return }
        state.withLock { state in
            var low = 0
            var high = state.bounds.count
            while low < high {
                let middle = (low + high) / 2
                if value <= state.bounds[middle] { high = middle } else { low = middle + 1 }
            }
            state.counts[low] += 1
            state.sum += value
        }
    }

    /// What was counted up to now.
    public var snapshot: Snapshot { state.withLock { $0 } }
}
