extension Kernels {
    /// e^x for every lane: range reduction by ln 2 and a polynomial of degree 6; within 2 ulp on the finite range,
    /// 0 below -87.3 and clamped above 88.3.
    @inline(__always)
    static func exponential(_ x: Lanes) -> Lanes {
        let (low, high) = (Lanes(repeating: -87.336_54), Lanes(repeating: 88.376_26))
        var clamped = x.replacing(with: low, where: x .< low)
        clamped.replace(with: high, where: clamped .> high)
        // Adding 1.5 · 2^23 rounds to a whole number, which then lies in the low bits.
        let magic = Lanes(repeating: 0x1.8p23)
        let magicBits = SIMD16<UInt32>(repeating: Float(0x1.8p23).bitPattern)
        let rounded = clamped * Lanes(repeating: 1.442_695_04) + magic
        let n = rounded - magic
        var r = clamped.addingProduct(n, Lanes(repeating: -0.693_359_375))
        r = r.addingProduct(n, Lanes(repeating: 2.121_944_4e-4))
        var p = Lanes(repeating: 1.987_569_15e-4)
        p = Lanes(repeating: 1.398_199_95e-3).addingProduct(p, r)
        p = Lanes(repeating: 8.333_451_9e-3).addingProduct(p, r)
        p = Lanes(repeating: 4.166_579_6e-2).addingProduct(p, r)
        p = Lanes(repeating: 1.666_666_55e-1).addingProduct(p, r)
        p = Lanes(repeating: 5.000_000_1e-1).addingProduct(p, r)
        p = (r + 1).addingProduct(p, r * r)
        let exponent = unsafeBitCast(rounded, to: SIMD16<UInt32>.self) &- magicBits &+ 127
        let scale = unsafeBitCast(exponent &<< 23, to: Lanes.self)
        return (p * scale).replacing(with: 0, where: x .< -87.336_54)
    }

    /// e^x by the same arithmetic as the vector kernels, so that scalar tails agree with them bit for bit.
    @inline(__always)
    public static func exponential(_ x: Float) -> Float { exponential(Lanes(repeating: x))[0] }

    @inline(__always)
    private static func forEachLanes(_ count: Int, _ body: (Int, Int) -> Void) {
        var i = 0
        while i < count {
            body(i, min(laneCount, count - i))
            i += laneCount
        }
    }

    /// The first `count` (at most 16) values, the other lanes zero.
    @inline(__always)
    static func take(_ pointer: UnsafePointer<Float>, _ count: Int) -> Lanes {
        count == laneCount ? load(pointer) : loadPartial(pointer, count)
    }

    /// Writes the first `count` (at most 16) lanes.
    @inline(__always)
    static func put(_ value: Lanes, _ pointer: UnsafeMutablePointer<Float>, _ count: Int) {
        if count == laneCount { store(value, pointer) } else { storePartial(value, pointer, count) }
    }

    /// out [count] = silu(gate) · up, elementwise; `out` may be `gate` or `up`.
    public static func siluMultiply(
        _ gate: UnsafePointer<Float>, _ up: UnsafePointer<Float>, _ count: Int, into out: UnsafeMutablePointer<Float>
    ) {
        forEachLanes(count) { i, n in
            let g = take(gate + i, n)
            put(g / (1 + exponential(-g)) * take(up + i, n), out + i, n)
        }
    }

    /// x [count] ← x · sigmoid(gate), elementwise.
    public static func sigmoidMultiply(
        _ x: UnsafeMutablePointer<Float>, gate: UnsafePointer<Float>, _ count: Int
    ) {
        forEachLanes(count) { i, n in
            put(take(x + i, n) / (1 + exponential(-take(gate + i, n))), x + i, n)
        }
    }

    /// x [count] ← sigmoid(x), elementwise.
    public static func sigmoid(_ x: UnsafeMutablePointer<Float>, _ count: Int) {
        forEachLanes(count) { i, n in
            put(1 / (1 + exponential(-take(x + i, n))), x + i, n)
        }
    }

    /// y [count] ← y + a · x, fused.
    public static func addScaled(
        _ y: UnsafeMutablePointer<Float>, _ a: Float, _ x: UnsafePointer<Float>, _ count: Int
    ) {
        let factor = Lanes(repeating: a)
        forEachLanes(count) { i, n in
            put(take(y + i, n).addingProduct(factor, take(x + i, n)), y + i, n)
        }
    }

    /// y [count] ← y + x.
    public static func add(_ y: UnsafeMutablePointer<Float>, _ x: UnsafePointer<Float>, _ count: Int) {
        forEachLanes(count) { i, n in put(take(y + i, n) + take(x + i, n), y + i, n) }
    }

    /// RMS(x; w, ε) = w · x / sqrt(mean(x²) + ε) over x [count], statistics in fp32 (docs/model.md#norms). `out` may be `x`.
    public static func rmsNorm(
        _ x: UnsafePointer<Float>, weight: UnsafePointer<Float>, epsilon: Float, _ count: Int,
        into out: UnsafeMutablePointer<Float>
    ) {
        var squares = Lanes()
        forEachLanes(count) { i, n in
            let v = take(x + i, n)
            squares.addProduct(v, v)
        }
        let factor = Lanes(repeating: 1 / (horizontalSum(squares) / Float(count) + epsilon).squareRoot())
        forEachLanes(count) { i, n in
            put(take(x + i, n) * factor * take(weight + i, n), out + i, n)
        }
    }

    /// Rotates the pairs (j, j + half) of `x` [2 · half]: the half-split form of the linear layers (docs/model.md#positions).
    public static func rotateHalfSplit(
        _ x: UnsafeMutablePointer<Float>, cosine: UnsafePointer<Float>, sine: UnsafePointer<Float>, half: Int
    ) {
        for j in 0..<half {
            let (a, b) = (x[j], x[j + half])
            x[j] = a * cosine[j] - b * sine[j]
            x[j + half] = b * cosine[j] + a * sine[j]
        }
    }

    /// Rotates the pairs (2j, 2j + 1) of `x` [2 · half]: the interleaved form of MLA (docs/model.md#positions).
    public static func rotateInterleaved(
        _ x: UnsafeMutablePointer<Float>, cosine: UnsafePointer<Float>, sine: UnsafePointer<Float>, half: Int
    ) {
        for j in 0..<half {
            let (a, b) = (x[2 * j], x[2 * j + 1])
            x[2 * j] = a * cosine[j] - b * sine[j]
            x[2 * j + 1] = b * cosine[j] + a * sine[j]
        }
    }

    /// Row `row` of a stored matrix [rows, columns] in fp32, for embeddings.
    public static func copyRow(_ row: Int, of matrix: WeightMatrix, into out: UnsafeMutablePointer<Float>) {
        let size = matrix.elementType.byteCount
        let base = matrix.elements + row * matrix.columns * size
        let scale = matrix.scales?[row] ?? 1
        switch matrix.elementType {
        case .float32: for i in 0..<matrix.columns { out[i] = Float32Lanes.one(base + i * size) }
        case .bfloat16: for i in 0..<matrix.columns { out[i] = BFloat16Lanes.one(base + i * size) }
        case .float8E4M3: for i in 0..<matrix.columns { out[i] = Float8E4M3Lanes.one(base + i * size) * scale }
        }
    }
}
