import Numerics
import TestSupport
import Testing

struct RoundingTests {
    /// Every finite magnitude from 0 up with its bits, from the definition of the format and nothing else.
    static let magnitudes: [(bits: UInt8, value: Double)] = (0..<0x7F).map { bits in
        let (exponent, fraction) = (bits >> 3, Double(bits & 7))
        let unit = (0..<max(1, exponent)).reduce(0x1p-10) { value, _ in value * 2 }
        return (UInt8(bits), exponent == 0 ? fraction * 0x1p-9 : (8 + fraction) * unit)
    }

    /// Nearest by search, ties to the even pattern, 448 beyond it.
    static func slowFloat8(_ value: Float) -> UInt8 {
        let sign: UInt8 = value.sign == .minus ? 0x80 : 0
        let magnitude = Double(value.magnitude)
        guard let last = magnitudes.last, magnitude < last.value else { return sign | 0x7E }
        guard let above = magnitudes.firstIndex(where: { $0.value >= magnitude }), above > 0 else { return sign }
        let (low, high) = (magnitudes[above - 1], magnitudes[above])
        let (down, up) = (magnitude - low.value, high.value - magnitude)
        if down == up { return sign | (low.bits & 1 == 0 ? low.bits : high.bits) }
        return sign | (down < up ? low.bits : high.bits)
    }

    private func mismatch(_ value: Float) -> Bool {
        let bits = Float8E4M3(value).bitPattern
        return value.isNaN ? bits & 0x7F != 0x7F : bits != Self.slowFloat8(value)
    }

    @Test func float8DecodesByDefinition() {
        for (bits, value) in Self.magnitudes {
            #expect(Double(Float8E4M3(bitPattern: bits).float) == value)
            #expect(Double(Float8E4M3(bitPattern: bits | 0x80).float) == -value)
            #expect(Float8E4M3(Float8E4M3(bitPattern: bits).float).bitPattern == bits)
        }
        #expect(Float8E4M3(bitPattern: 0x7F).float.isNaN && Float8E4M3(bitPattern: 0xFF).float.isNaN)
    }

    @Test func float8RoundsEveryBFloat16() {
        let wrong = (0...UInt16.max).filter { mismatch(BFloat16(bitPattern: $0).float) }
        #expect(wrong.isEmpty, "\(wrong.prefix(5))")
    }

    @Test(arguments: [UInt64(41)])
    func float8RoundsRandomValues(seed: UInt64) {
        var random = SeededRandom(seed: seed)
        var wrong: [Float] = []
        for index in 0..<1_000_000 {
            // Half of all patterns, half of those within the format's range, where the roundings are.
            let bits = UInt32(truncatingIfNeeded: random.next())
            let near = (bits & 0x80FF_FFFF) | (110 + (bits >> 24) % 26) << 23
            let value = Float(bitPattern: index % 2 == 0 ? bits : near)
            if mismatch(value) { wrong.append(value) }
        }
        #expect(wrong.isEmpty, "\(wrong.prefix(5))")
    }

    @Test func float8TiesGoToEven() {
        for (low, high) in zip(Self.magnitudes, Self.magnitudes.dropFirst()) {
            let middle = Float((low.value + high.value) / 2)
            #expect(Float8E4M3(middle).bitPattern == (low.bits & 1 == 0 ? low.bits : high.bits))
            #expect(Float8E4M3(middle.nextDown).bitPattern == low.bits)
            #expect(Float8E4M3(middle.nextUp).bitPattern == high.bits)
        }
        #expect(Float8E4M3(.infinity).bitPattern == 0x7E)
        #expect(Float8E4M3(-.infinity).bitPattern == 0xFE)
        #expect(Float8E4M3(-0.0).bitPattern == 0x80)
    }

    @Test func bfloat16KeepsItsOwnValues() {
        let wrong = (0...UInt16.max).filter { bits in
            let value = BFloat16(bitPattern: bits).float
            return value.isNaN ? !BFloat16(value).float.isNaN : BFloat16(value).bitPattern != bits
        }
        #expect(wrong.isEmpty, "\(wrong.prefix(5))")
    }

    @Test(arguments: [UInt64(42)])
    func bfloat16RoundsToNearestEven(seed: UInt64) {
        var random = SeededRandom(seed: seed)
        var wrong: [Float] = []
        for index in 0..<1_000_000 {
            var bits = UInt32(truncatingIfNeeded: random.next())
            if index % 4 == 0 { bits = bits & 0xFFFF_0000 | 0x8000 }
            let value = Float(bitPattern: bits)
            let rounded = BFloat16(value)
            if value.isNaN {
                if !rounded.float.isNaN { wrong.append(value) }
                continue
            }
            let rest = bits & 0xFFFF
            let low = UInt16(bits >> 16)
            let isUp = rest > 0x8000 || (rest == 0x8000 && low & 1 == 1)
            if rounded.bitPattern != low + (isUp ? 1 : 0) { wrong.append(value) }
        }
        #expect(wrong.isEmpty, "\(wrong.prefix(5))")
    }
}
