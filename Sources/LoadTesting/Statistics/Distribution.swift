/// Sorted samples and what is said of them. All are 0 when there are no samples.
public struct Distribution: Sendable, Equatable {
    /// The samples, rising.
    public let sorted: [Double]
    /// Arithmetic mean.
    public let mean: Double
    /// Standard deviation over all samples (not the estimate for a population).
    public let standardDeviation: Double

    /// The distribution of `samples`.
    public init(_ samples: [Double]) {
        sorted = samples.sorted()
        let count = Double(max(1, samples.count))
        let mean = sorted.reduce(0, +) / count
        self.mean = mean
        standardDeviation = (sorted.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / count).squareRoot()
    }

    /// How many samples.
    public var count: Int { sorted.count }
    /// The 50th percentile.
    public var median: Double { percentile(50) }
    /// The largest sample.
    public var maximum: Double { sorted.last ?? 0 }

    /// The `percent`-th percentile, interpolated between the two samples around rank `percent / 100 · (count − 1)`.
    public func percentile(_ percent: Double) -> Double {
        guard let last = sorted.indices.last else { return 0 }
        let rank = min(max(percent, 0), 100) / 100 * Double(last)
        let below = Int(rank)
        let above = min(below + 1, last)
        return sorted[below] + (sorted[above] - sorted[below]) * (rank - Double(below))
    }
}
