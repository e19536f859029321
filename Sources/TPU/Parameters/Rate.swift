/// Simulated time: whole picoseconds, so that the same run gives the same time on every machine.
public typealias Picoseconds = Int64

/// Bytes per time as a fixed-point number of picoseconds per byte.
struct Rate {
    private let scaled: Int64
    private static let fractionBits: Int64 = 24

    init(gigabytesPerSecond rate: Double) {
        scaled = max(1, Int64((1000 / max(rate, 0.001) * Double(1 << Self.fractionBits)).rounded()))
    }

    /// Time that `bytes` take.
    @inline(__always)
    func time(_ bytes: Int64) -> Picoseconds {
        (bytes &* scaled &+ (1 << (Self.fractionBits - 1))) >> Self.fractionBits
    }
}
