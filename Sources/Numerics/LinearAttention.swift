/// The kernel of one head of the linear (GLA) layers: S_t = λ S_{t-1} + k_t v_tᵀ, o_t = D^(-1/2) S_tᵀ q_t
/// (docs/model.md#linear-attention). S is [D, D], rows = key dimension, fp32.
///
/// Every element of S takes its tokens one after the other, and every output adds the rows of S in ascending order. How
/// many tokens come in one call decides which part of S stays in registers meanwhile, and no bit.
extension Kernels {
    /// Tokens that pass by while a tile of S stays in registers.
    private static var passTokens: Int { 64 }
    /// Fewer go through the whole of S one by one: it is read from beginning to end, as memory likes it.
    private static var leastPassTokens: Int { 8 }

    /// Floats of scratch that `linearAttention` needs for head width `width`.
    public static func linearAttentionScratch(width: Int) -> Int {
        passTokens * (2 * ((width + 3) / 4 * 4) + 2 * laneCount)
    }

    /// `count` tokens of one sequence; updates S to the state after the last one.
    ///
    /// - state: [width, width]; query, key, value: [count, width] with `stride`; out: [count, width] with `outputStride`,
    ///   which overlaps none of them.
    /// - decay: λ.
    /// - scratch: `linearAttentionScratch(width:)` floats.
    public static func linearAttention(
        state: UnsafeMutablePointer<Float>, width: Int, count: Int, decay: Float, query: UnsafePointer<Float>,
        key: UnsafePointer<Float>, value: UnsafePointer<Float>, stride: Int, into out: UnsafeMutablePointer<Float>,
        outputStride: Int, scratch: UnsafeMutablePointer<Float>
    ) {
        var first = 0
        while first < count {
            let (q, k, v) = (query + first * stride, key + first * stride, value + first * stride)
            let o = out + first * outputStride
            if count - first < leastPassTokens {
                step(state, width, decay, q, k, v, o)
                first += 1
            } else {
                let tokens = min(passTokens, count - first)
                pass(state, width, tokens, decay, q, k, v, stride, o, outputStride, scratch)
                first += tokens
            }
        }
    }

    // MARK: Token by token

    private static func step(
        _ state: UnsafeMutablePointer<Float>, _ width: Int, _ decay: Float, _ query: UnsafePointer<Float>,
        _ key: UnsafePointer<Float>, _ value: UnsafePointer<Float>, _ out: UnsafeMutablePointer<Float>
    ) {
        let scale = 1 / Float(width).squareRoot()
        var column = 0
        while column + 4 * laneCount <= width {
            stepColumns4(state + column, width, decay, query, key, value + column, scale, out + column)
            column += 4 * laneCount
        }
        while column < width {
            let count = min(laneCount, width - column)
            stepColumns(state + column, width, decay, query, key, value + column, scale, out + column, count)
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
        let v = take(value, count)
        var o = Lanes()
        for d in 0..<width {
            let row = state + d * width
            let s = (take(row, count) * lambda).addingProduct(Lanes(repeating: key[d]), v)
            put(s, row, count)
            o.addProduct(Lanes(repeating: query[d]), s)
        }
        put(o * scale, out, count)
    }

    // MARK: Many tokens

    /// Tile by tile of four rows and sixteen columns of S, past all tokens.
    private static func pass(
        _ state: UnsafeMutablePointer<Float>, _ width: Int, _ count: Int, _ decay: Float,
        _ query: UnsafePointer<Float>, _ key: UnsafePointer<Float>, _ value: UnsafePointer<Float>, _ stride: Int,
        _ out: UnsafeMutablePointer<Float>, _ outputStride: Int, _ scratch: UnsafeMutablePointer<Float>
    ) {
        let values = scratch
        let sums = values + passTokens * laneCount
        let pairs = sums + passTokens * laneCount
        packPairs(query, key, stride, width, count, into: pairs)
        let (lambda, scale) = (Lanes(repeating: decay), 1 / Float(width).squareRoot())
        var column = 0
        while column < width {
            let columns = min(laneCount, width - column)
            for t in 0..<count {
                store(take(value + t * stride + column, columns), values + t * laneCount)
                store(Lanes(), sums + t * laneCount)
            }
            var row = 0
            while row < width {
                let tile = state + row * width + column
                let factors = pairs + row * 2 * count
                if row + 4 <= width, columns == laneCount {
                    passRows4(tile, width, factors, values, sums, count, lambda)
                } else {
                    for r in 0..<min(4, width - row) {
                        passRow(tile + r * width, columns, factors + r, values, sums, count, lambda)
                    }
                }
                row += 4
            }
            for t in 0..<count {
                put(load(sums + t * laneCount) * scale, out + t * outputStride + column, columns)
            }
            column += laneCount
        }
    }

    /// Of four rows at a time, and of one token after the other, four elements of its query and four of its key.
    private static func packPairs(
        _ query: UnsafePointer<Float>, _ key: UnsafePointer<Float>, _ stride: Int, _ width: Int, _ count: Int,
        into pairs: UnsafeMutablePointer<Float>
    ) {
        for row in Swift.stride(from: 0, to: width, by: 4) {
            for t in 0..<count {
                let pair = pairs + row * 2 * count + t * 8
                for r in 0..<min(4, width - row) {
                    pair[r] = query[t * stride + row + r]
                    pair[4 + r] = key[t * stride + row + r]
                }
            }
        }
    }

    // Not inlined, so that the tile stays in registers.
    @inline(never)
    private static func passRows4(
        _ state: UnsafeMutablePointer<Float>, _ width: Int, _ pairs: UnsafePointer<Float>,
        _ values: UnsafePointer<Float>, _ sums: UnsafeMutablePointer<Float>, _ count: Int, _ lambda: Lanes
    ) {
        var (s0, s1) = (load(state), load(state + width))
        var (s2, s3) = (load(state + 2 * width), load(state + 3 * width))
        for t in 0..<count {
            let pair = pairs + t * 8
            let v = load(values + t * laneCount)
            var o = load(sums + t * laneCount)
            s0 = (s0 * lambda).addingProduct(Lanes(repeating: pair[4]), v)
            o.addProduct(Lanes(repeating: pair[0]), s0)
            s1 = (s1 * lambda).addingProduct(Lanes(repeating: pair[5]), v)
            o.addProduct(Lanes(repeating: pair[1]), s1)
            s2 = (s2 * lambda).addingProduct(Lanes(repeating: pair[6]), v)
            o.addProduct(Lanes(repeating: pair[2]), s2)
            s3 = (s3 * lambda).addingProduct(Lanes(repeating: pair[7]), v)
            o.addProduct(Lanes(repeating: pair[3]), s3)
            store(o, sums + t * laneCount)
        }
        store(s0, state)
        store(s1, state + width)
        store(s2, state + 2 * width)
        store(s3, state + 3 * width)
    }

    private static func passRow(
        _ state: UnsafeMutablePointer<Float>, _ columns: Int, _ pairs: UnsafePointer<Float>,
        _ values: UnsafePointer<Float>, _ sums: UnsafeMutablePointer<Float>, _ count: Int, _ lambda: Lanes
    ) {
        var s = take(state, columns)
        for t in 0..<count {
            s = (s * lambda).addingProduct(Lanes(repeating: pairs[t * 8 + 4]), load(values + t * laneCount))
            let o = load(sums + t * laneCount).addingProduct(Lanes(repeating: pairs[t * 8]), s)
            store(o, sums + t * laneCount)
        }
        put(s, state, columns)
    }
}
