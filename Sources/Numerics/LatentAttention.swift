/// Kernels of one head of the MLA layers (spec section 7). Keys come in blocks of 64 aligned to absolute positions and
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

    @inline(__always)
    private static func transposed<Stored: StoredLanes>(
        _ stored: Stored.Type, _ x: UnsafePointer<Float>, _ w: WeightMatrix, _ out: UnsafeMutablePointer<Float>
    ) {
        let step = w.columns * Stored.byteCount
        var column = 0
        while column < w.columns {
            let count = min(laneCount, w.columns - column)
            var sum = Lanes()
            var pointer = w.elements + column * Stored.byteCount
            for d in 0..<w.rows {
                let a = Lanes(repeating: w.scales.map { x[d] * $0[d] } ?? x[d])
                sum.addProduct(a, count == laneCount ? Stored.load(pointer) : loadPartial(stored, pointer, count))
                pointer += step
            }
            storePartial(sum, out + column, count)
            column += count
        }
    }
}
