import RandomNumbers

/// The random numbers of all tests: the same for the same seed, on every machine. A test says its seed when it fails.
public struct SeededRandom: RandomNumberGenerator, Sendable {
    private var generator: SplitMix64

    /// The numbers of `seed`.
    public init(seed: UInt64) { generator = SplitMix64(seed: seed) }

    /// The next 64 bits.
    public mutating func next() -> UInt64 { generator.next() }

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
