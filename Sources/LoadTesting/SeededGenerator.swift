import Foundation
import RandomNumbers

/// The same numbers for the same seed and stream, on every machine.
public struct SeededGenerator: RandomNumberGenerator, Sendable {
    private var generator: SplitMix64

    /// The generator of `seed`; every `stream` of a seed has numbers of its own, so that what one request is made of
    /// does not depend on how many others there are.
    public init(seed: UInt64, stream: UInt64 = 0) {
        generator = SplitMix64(
            seed: SplitMix64.mix(seed &+ 0x9E37_79B9_7F4A_7C15)
                ^ SplitMix64.mix(stream &* 0xD1B5_4A32_D192_ED03 &+ 1))
    }

    /// The next 64 bits.
    public mutating func next() -> UInt64 { generator.next() }

    /// A number from 0 to 1, never 0.
    public mutating func unit() -> Double { (Double(next() >> 11) + 1) / 0x1p53 }

    /// A normally distributed number of mean 0 and variance 1 (Box and Muller).
    public mutating func normal() -> Double {
        (-2 * log(unit())).squareRoot() * cos(2 * .pi * unit())
    }

    /// A gamma-distributed number of mean `shape` (Marsaglia and Tsang, 2000).
    public mutating func gamma(shape: Double) -> Double {
        guard shape >= 1 else { return gamma(shape: shape + 1) * pow(unit(), 1 / shape) }
        let d = shape - 1 / 3.0
        let c = 1 / (9 * d).squareRoot()
        while true {
            let x = normal()
            let base = 1 + c * x
            guard base > 0 else { continue }
            let v = base * base * base
            if log(unit()) < x * x / 2 + d - d * v + d * log(v) { return d * v }
        }
    }
}
