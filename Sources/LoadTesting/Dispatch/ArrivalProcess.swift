import Foundation

/// When requests arrive in an open loop.
public struct ArrivalProcess: Sendable, Equatable {
    /// How the rate changes from the first request to the last, requests per second.
    public enum Rate: Sendable, Equatable {
        /// All at once.
        case unlimited
        /// The same throughout.
        case constant(Double)
        /// Grows evenly per request.
        case linear(from: Double, to: Double)
        /// Grows by the same factor per request.
        case exponential(from: Double, to: Double)
    }

    /// The rate.
    public var rate: Rate
    /// Shape of the gamma distribution of the gaps: 1 is a Poisson process, less is burstier, more is steadier. Their
    /// coefficient of variation is 1/√burstiness.
    public var burstiness: Double
    /// Seed of the gaps.
    public var seed: UInt64

    /// A process.
    public init(_ rate: Rate, burstiness: Double = 1, seed: UInt64) {
        self.rate = rate
        self.burstiness = burstiness
        self.seed = seed
    }

    /// When each of `count` requests arrives, microseconds from the start; the first after one gap.
    public func times(count: Int) -> [UInt64] {
        var generator = SeededGenerator(seed: seed, stream: SeedStream.arrivals)
        var now = 0.0
        return (0..<count).map { index in
            guard let rate = rate(of: index, count) else { return 0 }
            now += generator.gamma(shape: burstiness) / burstiness / rate
            return UInt64(min(now * 1e6, 1e15))
        }
    }

    private func rate(of index: Int, _ count: Int) -> Double? {
        let progress = Double(index) / Double(max(1, count - 1))
        switch rate {
        case .unlimited: return nil
        case .constant(let rate): return rate
        case .linear(let from, let to): return from + (to - from) * progress
        case .exponential(let from, let to): return from * pow(to / from, progress)
        }
    }
}
