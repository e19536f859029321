/// A 16-bit float with the exponent range of fp32 and 8 bits of precision: the upper half of an fp32.
public struct BFloat16: Sendable, Equatable {
    /// The stored bits: sign, 8 exponent bits, 7 fraction bits.
    public var bitPattern: UInt16

    /// The value with these bits.
    public init(bitPattern: UInt16) { self.bitPattern = bitPattern }

    /// `value` rounded to nearest, ties to even; a NaN stays a NaN.
    public init(_ value: Float) {
        let bits = value.bitPattern
        guard !value.isNaN else {
            bitPattern = UInt16(truncatingIfNeeded: bits >> 16) | 0x0040
            return
        }
        bitPattern = UInt16(truncatingIfNeeded: (bits &+ 0x7FFF &+ ((bits >> 16) & 1)) >> 16)
    }

    /// The same value in fp32, exactly.
    public var float: Float { Float(bitPattern: UInt32(bitPattern) << 16) }
}
