/// What sampling needs of a row of logits, sixteen at a time.
extension Kernels {
    /// The largest of x [count], or NaN when one of them is NaN; -∞ for none.
    public static func maximum(_ x: UnsafePointer<Float>, _ count: Int) -> Float {
        var highest = Lanes(repeating: -.infinity)
        var broken = SIMDMask<SIMD16<Int32>>(repeating: false)
        var i = 0
        while i + laneCount <= count {
            let v = load(x + i)
            broken .|= v .!= v
            highest.replace(with: v, where: v .> highest)
            i += laneCount
        }
        var result = -Float.infinity
        for lane in 0..<laneCount {
            if broken[lane] { return .nan }
            result = max(result, highest[lane])
        }
        while i < count {
            if x[i].isNaN { return .nan }
            result = max(result, x[i])
            i += 1
        }
        return result
    }

    /// The first index of x [count] whose value is `value`; `count` when there is none.
    public static func firstIndex(of value: Float, in x: UnsafePointer<Float>, _ count: Int) -> Int {
        let wanted = Lanes(repeating: value)
        var i = 0
        while i + laneCount <= count, !any(load(x + i) .== wanted) { i += laneCount }
        while i < count, x[i] != value { i += 1 }
        return i
    }

    /// out [count] ← e^((x - shift) / divisor), elementwise; `out` may be `x`.
    public static func exponentials(
        _ x: UnsafePointer<Float>, _ count: Int, shift: Float, divisor: Float, into out: UnsafeMutablePointer<Float>
    ) {
        let (s, d) = (Lanes(repeating: shift), Lanes(repeating: divisor))
        var i = 0
        while i + laneCount <= count {
            store(exponential((load(x + i) - s) / d), out + i)
            i += laneCount
        }
        while i < count {
            out[i] = exponential((x[i] - shift) / divisor)
            i += 1
        }
    }

    /// Σ x over x [count] in float64: eight running sums over every eighth value, then those in order.
    public static func sum(_ x: UnsafePointer<Float>, _ count: Int) -> Double {
        var sums = SIMD8<Double>()
        var i = 0
        while i + 8 <= count {
            sums += SIMD8(
                Double(x[i]), Double(x[i + 1]), Double(x[i + 2]), Double(x[i + 3]), Double(x[i + 4]), Double(x[i + 5]),
                Double(x[i + 6]), Double(x[i + 7]))
            i += 8
        }
        var total = 0.0
        for lane in 0..<8 { total += sums[lane] }
        while i < count {
            total += Double(x[i])
            i += 1
        }
        return total
    }
}
