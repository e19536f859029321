/// Kernels of one head of the linear (GLA) layers: S_t = λ S_{t-1} + k_t v_tᵀ, o_t = D^(-1/2) S_tᵀ q_t
/// (docs/model.md#linear-attention). S is [D, D], rows = key dimension, fp32.
extension Kernels {
    /// Tokens in one chunk of the chunk-wise form.
    public static var chunkTokens: Int { 64 }

    /// Floats of scratch that `linearAttentionChunk` needs for head width `width`.
    public static func linearAttentionScratch(width: Int) -> Int { chunkTokens * chunkTokens + width * chunkTokens }

    /// One token: updates S, then reads it. `out` [width] must not overlap the inputs.
    public static func linearAttentionStep(
        state: UnsafeMutablePointer<Float>, width: Int, decay: Float, query: UnsafePointer<Float>,
        key: UnsafePointer<Float>, value: UnsafePointer<Float>, into out: UnsafeMutablePointer<Float>
    ) {
        let scale = 1 / Float(width).squareRoot()
        var column = 0
        while column + 4 * laneCount <= width {
            stepColumns4(state + column, width, decay, query, key, value + column, scale, out + column)
            column += 4 * laneCount
        }
        while column < width {
            stepColumns(
                state + column, width, decay, query, key, value + column, scale, out + column,
                min(laneCount, width - column))
            column += laneCount
        }
    }

    @inline(__always)
    private static func stepColumns4(
        _ state: UnsafeMutablePointer<Float>, _ width: Int, _ decay: Float, _ query: UnsafePointer<Float>,
        _ key: UnsafePointer<Float>, _ value: UnsafePointer<Float>, _ scale: Float, _ out: UnsafeMutablePointer<Float>
    ) {
        let lambda = Lanes(repeating: decay)
        let (v0, v1, v2, v3) = (load(value), load(value + 16), load(value + 32), load(value + 48))
        var (o0, o1, o2, o3) = (Lanes(), Lanes(), Lanes(), Lanes())
        for d in 0..<width {
            let row = state + d * width
            let (k, q) = (Lanes(repeating: key[d]), Lanes(repeating: query[d]))
            let s0 = (load(row) * lambda).addingProduct(k, v0)
            let s1 = (load(row + 16) * lambda).addingProduct(k, v1)
            let s2 = (load(row + 32) * lambda).addingProduct(k, v2)
            let s3 = (load(row + 48) * lambda).addingProduct(k, v3)
            store(s0, row)
            store(s1, row + 16)
            store(s2, row + 32)
            store(s3, row + 48)
            o0.addProduct(q, s0)
            o1.addProduct(q, s1)
            o2.addProduct(q, s2)
            o3.addProduct(q, s3)
        }
        store(o0 * scale, out)
        store(o1 * scale, out + 16)
        store(o2 * scale, out + 32)
        store(o3 * scale, out + 48)
    }

    @inline(__always)
    private static func stepColumns(
        _ state: UnsafeMutablePointer<Float>, _ width: Int, _ decay: Float, _ query: UnsafePointer<Float>,
        _ key: UnsafePointer<Float>, _ value: UnsafePointer<Float>, _ scale: Float, _ out: UnsafeMutablePointer<Float>,
        _ count: Int
    ) {
        let lambda = Lanes(repeating: decay)
        let v = loadPartial(value, count)
        var o = Lanes()
        for d in 0..<width {
            let row = state + d * width
            let s = (loadPartial(row, count) * lambda).addingProduct(Lanes(repeating: key[d]), v)
            storePartial(s, row, count)
            o.addProduct(Lanes(repeating: query[d]), s)
        }
        storePartial(o * scale, out, count)
    }

    /// `count` ≤ 64 tokens of one sequence, starting on a chunk boundary; updates S to the state after the last one.
    ///
    /// - powers: exp(g · m) for m = 0 … 64, all ≤ 1; only non-positive exponents are ever formed.
    /// - query, key, value: [count, width] with `stride`; out: [count, width] with `outputStride`.
    /// - scratch: `linearAttentionScratch(width:)` floats.
    public static func linearAttentionChunk(
        state: UnsafeMutablePointer<Float>, width: Int, count: Int, powers: UnsafePointer<Float>,
        query: UnsafePointer<Float>, key: UnsafePointer<Float>, value: UnsafePointer<Float>, stride: Int,
        into out: UnsafeMutablePointer<Float>, outputStride: Int, scratch: UnsafeMutablePointer<Float>
    ) {
        let scores = scratch
        let keys = scratch + chunkTokens * chunkTokens
        dotRows(query, count, stride, key, stride, count, width, scores, chunkTokens)
        for i in 0..<count {
            for j in 0..<count {
                let index = i * chunkTokens + j
                scores[index] = j <= i ? scores[index] * powers[i - j] : 0
            }
        }
        let scale = 1 / Float(width).squareRoot()
        // inter-chunk part first, decayed row by row, then the causal part within the chunk on top of it
        broadcastMultiply(
            query, stride, 1, rows: count, inner: width, state, width, columns: width, into: out, outputStride,
            keep: 0)
        for i in 0..<count {
            let row = out + i * outputStride
            for c in 0..<width { row[c] *= powers[i + 1] }
        }
        broadcastMultiply(
            scores, chunkTokens, 1, rows: count, inner: count, value, stride, columns: width, into: out, outputStride,
            keep: 1)
        for i in 0..<count {
            let row = out + i * outputStride
            for c in 0..<width { row[c] *= scale }
        }
        for j in 0..<count {
            let weight = powers[count - 1 - j]
            for d in 0..<width { keys[j * width + d] = key[j * stride + d] * weight }
        }
        broadcastMultiply(
            keys, 1, width, rows: width, inner: count, value, stride, columns: width, into: state, width,
            keep: powers[count])
    }

    /// c[i, :] ← keep · c[i, :] + Σ_d a[i · aRow + d · aInner] · b[d, :], summed over d in ascending order, fused.
    /// `keep` 0 ignores what c held.
    @inline(__always)
    static func broadcastMultiply(
        _ a: UnsafePointer<Float>, _ aRow: Int, _ aInner: Int, rows: Int, inner: Int, _ b: UnsafePointer<Float>,
        _ bStride: Int, columns: Int, into c: UnsafeMutablePointer<Float>, _ cStride: Int, keep: Float
    ) {
        var column = 0
        while column + 2 * laneCount <= columns {
            var row = 0
            while row + 4 <= rows {
                broadcastTile(
                    a + row * aRow, aRow, aInner, inner, b + column, bStride, c + row * cStride + column, cStride, keep)
                row += 4
            }
            while row < rows {
                for half in 0..<2 {
                    broadcastRow(
                        a + row * aRow, aInner, inner, b + column + half * laneCount, bStride,
                        c + row * cStride + column + half * laneCount, laneCount, keep)
                }
                row += 1
            }
            column += 2 * laneCount
        }
        while column < columns {
            let count = min(laneCount, columns - column)
            for row in 0..<rows {
                broadcastRow(
                    a + row * aRow, aInner, inner, b + column, bStride, c + row * cStride + column, count, keep)
            }
            column += count
        }
    }

    @inline(__always)
    private static func broadcastTile(
        _ a: UnsafePointer<Float>, _ aRow: Int, _ aInner: Int, _ inner: Int, _ b: UnsafePointer<Float>, _ bStride: Int,
        _ c: UnsafeMutablePointer<Float>, _ cStride: Int, _ keep: Float
    ) {
        let factor = Lanes(repeating: keep)
        @inline(__always)
        func start(_ offset: Int) -> Lanes { keep == 0 ? Lanes() : load(c + offset) * factor }
        var (s00, s01, s10, s11) = (start(0), start(16), start(cStride), start(cStride + 16))
        var (s20, s21) = (start(2 * cStride), start(2 * cStride + 16))
        var (s30, s31) = (start(3 * cStride), start(3 * cStride + 16))
        for d in 0..<inner {
            let p = b + d * bStride
            let (b0, b1) = (load(p), load(p + 16))
            let q = a + d * aInner
            let (a0, a1) = (Lanes(repeating: q[0]), Lanes(repeating: q[aRow]))
            let (a2, a3) = (Lanes(repeating: q[2 * aRow]), Lanes(repeating: q[3 * aRow]))
            s00.addProduct(a0, b0)
            s01.addProduct(a0, b1)
            s10.addProduct(a1, b0)
            s11.addProduct(a1, b1)
            s20.addProduct(a2, b0)
            s21.addProduct(a2, b1)
            s30.addProduct(a3, b0)
            s31.addProduct(a3, b1)
        }
        store(s00, c)
        store(s01, c + 16)
        store(s10, c + cStride)
        store(s11, c + cStride + 16)
        store(s20, c + 2 * cStride)
        store(s21, c + 2 * cStride + 16)
        store(s30, c + 3 * cStride)
        store(s31, c + 3 * cStride + 16)
    }

    @inline(__always)
    private static func broadcastRow(
        _ a: UnsafePointer<Float>, _ aInner: Int, _ inner: Int, _ b: UnsafePointer<Float>, _ bStride: Int,
        _ c: UnsafeMutablePointer<Float>, _ count: Int, _ keep: Float
    ) {
        var sum = keep == 0 ? Lanes() : loadPartial(c, count) * Lanes(repeating: keep)
        for d in 0..<inner {
            sum.addProduct(Lanes(repeating: a[d * aInner]), loadPartial(b + d * bStride, count))
        }
        storePartial(sum, c, count)
    }
}
