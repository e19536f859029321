/// Kernels of one head of the MLA layers (docs/model.md#latent-attention). Keys come in blocks of 64 aligned to absolute positions and
/// softmax runs online over the blocks, so that a query's bits do not depend on how its prompt was cut.
extension Kernels {
    /// Keys in one attention block.
    public static var blockTokens: Int { 64 }

    /// Running softmax of `rows` queries over one block of keys, `width`-dimensional values.
    ///
    /// - query: [rows, dimension] contiguous with `queryStride`; key: [keyCount, dimension] with `keyStride`;
    ///   value: [keyCount, width] with `valueStride`.
    /// - visible: keys of this block that row 0 may see; every further row sees one more (causal), at most `keyCount`.
    /// - maximum, total: [rows]; output: [rows, width] with `outputStride`. Start them with -∞, 0 and 0.
    /// - scratch: rows · 64 floats.
    public static func attendBlock(
        query: UnsafePointer<Float>, queryStride: Int, rows: Int, key: UnsafePointer<Float>, keyStride: Int,
        value: UnsafePointer<Float>, valueStride: Int, keyCount: Int, visible: Int, dimension: Int, width: Int,
        scale: Float, maximum: UnsafeMutablePointer<Float>, total: UnsafeMutablePointer<Float>,
        output: UnsafeMutablePointer<Float>, outputStride: Int, scratch: UnsafeMutablePointer<Float>
    ) {
        let scores = scratch
        dotRows(query, rows, queryStride, key, keyStride, keyCount, dimension, scores, blockTokens)
        for row in 0..<rows {
            let count = min(keyCount, visible + row)
            guard count > 0 else {
                for j in 0..<blockTokens { scores[row * blockTokens + j] = 0 }
                continue
            }
            softmaxRow(
                scores + row * blockTokens, count, scale, maximum + row, total + row, output + row * outputStride,
                width)
        }
        // weights of masked keys are zero, so that a row adds exactly what it may see
        broadcastMultiply(
            scores, blockTokens, 1, rows: rows, inner: keyCount, value, valueStride, columns: width, into: output,
            outputStride, keep: 1)
    }

    /// Turns the scores of one row into weights e^(s - m) and rescales what was summed before.
    @inline(__always)
    private static func softmaxRow(
        _ scores: UnsafeMutablePointer<Float>, _ count: Int, _ scale: Float, _ maximum: UnsafeMutablePointer<Float>,
        _ total: UnsafeMutablePointer<Float>, _ output: UnsafeMutablePointer<Float>, _ width: Int
    ) {
        var highest = maximum.pointee
        for j in 0..<count {
            scores[j] *= scale
            highest = max(highest, scores[j])
        }
        for j in count..<blockTokens { scores[j] = -.infinity }
        let correction = maximum.pointee == -.infinity ? 0 : exponential(maximum.pointee - highest)
        var sum = Lanes()
        for j in stride(from: 0, to: blockTokens, by: laneCount) {
            let weights = exponential(load(scores + j) - highest)
            store(weights, scores + j)
            sum += weights
        }
        total.pointee = total.pointee * correction + horizontalSum(sum)
        maximum.pointee = highest
        if correction != 1 {
            for c in 0..<width { output[c] *= correction }
        }
    }

    /// out ← Σ_d x[d] · w[d, :] (· row scale), d ascending: the transpose product that absorbs W_UK into a query.
    /// x: [w.rows]; out: [w.columns].
    public static func multiplyTransposed(
        _ x: UnsafePointer<Float>, by w: WeightMatrix, into out: UnsafeMutablePointer<Float>
    ) {
        switch w.elementType {
        case .float32: transposed(Float32Lanes.self, x, w, out)
        case .bfloat16: transposed(BFloat16Lanes.self, x, w, out)
        case .float8E4M3: transposed(Float8E4M3Lanes.self, x, w, out)
        }
    }

    /// Some blocks of 64 stored bytes per row at a time, down all rows.
    @inline(__always)
    private static func transposed<Stored: StoredLanes>(
        _ stored: Stored.Type, _ x: UnsafePointer<Float>, _ w: WeightMatrix, _ out: UnsafeMutablePointer<Float>
    ) {
        let step = w.columns * Stored.byteCount
        var column = 0
        while column + 2 * Stored.blockCount <= w.columns {
            let base = w.elements + column * Stored.byteCount
            transposedBlocks(stored, x, w.scales, w.rows, base, step, out + column, isPair: true)
            column += 2 * Stored.blockCount
        }
        while column + Stored.blockCount <= w.columns {
            let base = w.elements + column * Stored.byteCount
            transposedBlocks(stored, x, w.scales, w.rows, base, step, out + column, isPair: false)
            column += Stored.blockCount
        }
        while column < w.columns {
            var sum: Float = 0
            for d in 0..<w.rows {
                let a = w.scales.map { x[d] * $0[d] } ?? x[d]
                sum.addProduct(a, Stored.one(w.elements + d * step + column * Stored.byteCount))
            }
            out[column] = sum
            column += 1
        }
    }

    /// One block, or two neighbouring ones, down all rows.
    @inline(__always)
    private static func transposedBlocks<Stored: StoredLanes>(
        _: Stored.Type, _ x: UnsafePointer<Float>, _ scales: UnsafePointer<Float>?, _ rows: Int,
        _ base: UnsafeRawPointer, _ step: Int, _ out: UnsafeMutablePointer<Float>, isPair: Bool
    ) {
        var (s0, s1, s2, s3) = (Lanes(), Lanes(), Lanes(), Lanes())
        var (t0, t1, t2, t3) = (Lanes(), Lanes(), Lanes(), Lanes())
        var pointer = base
        for d in 0..<rows {
            let a = Lanes(repeating: (scales.map { x[d] * $0[d] } ?? x[d]) * Stored.packedFactor)
            s0.addProduct(a, Stored.lanes(pointer, 0))
            if Stored.partCount > 1 { s1.addProduct(a, Stored.lanes(pointer, 1)) }
            if Stored.partCount > 2 {
                s2.addProduct(a, Stored.lanes(pointer, 2))
                s3.addProduct(a, Stored.lanes(pointer, 3))
            }
            if isPair {
                t0.addProduct(a, Stored.lanes(pointer + 64, 0))
                if Stored.partCount > 1 { t1.addProduct(a, Stored.lanes(pointer + 64, 1)) }
                if Stored.partCount > 2 {
                    t2.addProduct(a, Stored.lanes(pointer + 64, 2))
                    t3.addProduct(a, Stored.lanes(pointer + 64, 3))
                }
            }
            pointer += step
        }
        func put(_ part: Int, _ sum: Lanes, _ out: UnsafeMutablePointer<Float>) {
            guard part < Stored.partCount else { return }
            for lane in 0..<laneCount { out[Stored.element(part, lane)] = sum[lane] * Stored.resultFactor }
        }
        put(0, s0, out)
        put(1, s1, out)
        put(2, s2, out)
        put(3, s3, out)
        guard isPair else { return }
        put(0, t0, out + Stored.blockCount)
        put(1, t1, out + Stored.blockCount)
        put(2, t2, out + Stored.blockCount)
        put(3, t3, out + Stored.blockCount)
    }
}
