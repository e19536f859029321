/// The random numbers of all tests: the same for the same seed, on every machine (SplitMix64 of Steele, Lea and Flood,
/// 2014). A test says its seed when it fails.
public struct SeededRandom: RandomNumberGenerator, Sendable {
    private var state: UInt64

    /// The numbers of `seed`.
    public init(seed: UInt64) { state = seed }

    /// The next 64 bits.
    public mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }

    /// So many random bytes.
    public mutating func bytes(_ count: Int) -> [UInt8] {
        (0..<count).map { _ in UInt8(truncatingIfNeeded: next()) }
    }

    /// A number from -1 to 1.
    public mutating func value() -> Float { Float(Int64(bitPattern: next()) >> 40) * 0x1p-23 }

    /// So many numbers from -1 to 1.
    public mutating func values(_ count: Int) -> [Float] { (0..<count).map { _ in value() } }

    /// One of the choices, of which there must be one.
    public mutating func pick<Element>(_ choices: [Element]) -> Element { choices[Int(next() % UInt64(choices.count))] }
}
