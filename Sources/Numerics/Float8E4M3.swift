/// An 8-bit float with 4 exponent and 3 fraction bits, the "fn" kind: largest 448, no infinity, NaN is 0x7F or 0xFF.
public struct Float8E4M3: Sendable, Equatable {
    /// The stored bits: sign, 4 exponent bits (bias 7), 3 fraction bits.
    public var bitPattern: UInt8

    /// The largest finite value.
    public static let greatestFiniteMagnitude: Float = 448

    /// The value with these bits.
    public init(bitPattern: UInt8) { self.bitPattern = bitPattern }

    /// `value` rounded to nearest, ties to even, saturating at ±448; a NaN stays a NaN.
    public init(_ value: Float) {
        let sign = UInt8(truncatingIfNeeded: value.bitPattern >> 24) & 0x80
        guard !value.isNaN else {
            bitPattern = sign | 0x7F
            return
        }
        let magnitude = value.magnitude
        guard magnitude < Self.greatestFiniteMagnitude else {
            bitPattern = sign | 0x7E
            return
        }
        // Below 2^-6 the spacing is that of the subnormals, 2^-9; adding 2^14 (whose ulp is 2^-9) rounds to it.
        if magnitude < 0x1p-6 {
            let shifted = magnitude + 0x1p14
            bitPattern = sign | UInt8(truncatingIfNeeded: shifted.bitPattern)
            return
        }
        let bits = magnitude.bitPattern
        let rounded = bits &+ 0x7FFFF &+ ((bits >> 20) & 1)
        bitPattern = sign | UInt8(truncatingIfNeeded: min((rounded >> 20) &- (120 << 3), 0x7E))
    }

    /// The index of the first NaN among the stored values [count], or nil.
    public static func firstNaN(_ elements: UnsafeRawPointer, _ count: Int) -> Int? {
        var i = 0
        while i + 64 <= count {
            let words = elements.loadUnaligned(fromByteOffset: i, as: SIMD16<UInt32>.self)
            // only 0x7F carries into the sign
            let carried = ((words & 0x7F7F_7F7F) &+ 0x0101_0101) & 0x8080_8080
            if any(carried .!= 0) { break }
            i += 64
        }
        while i < count {
            if elements.load(fromByteOffset: i, as: UInt8.self) & 0x7F == 0x7F { return i }
            i += 1
        }
        return nil
    }

    /// The same value in fp32, exactly.
    public var float: Float {
        let magnitude = bitPattern & 0x7F
        guard magnitude != 0x7F else { return .nan }
        // The bits read as an fp32 with the exponent biased by 7 instead of 127: scale by 2^120.
        let scaled = Float(bitPattern: UInt32(magnitude) << 20) * 0x1p120
        return bitPattern & 0x80 == 0 ? scaled : -scaled
    }
}
