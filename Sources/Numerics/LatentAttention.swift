/// Kernels of the MLA layers in their absorbed form (docs/model.md#latent-attention): all heads attend to the same latents, so sixteen
/// queries, of one head or of several, are taken at once, one per lane. Keys come in blocks of 64 aligned to absolute
/// positions and softmax runs online over the blocks. A lane's bits depend on its query and on the latents that it sees:
/// not on the other lanes, nor on how many keys lie behind those.
extension Kernels {
    /// Keys in one attention block.
    public static var blockTokens: Int { 64 }
    /// Queries that are attended for together.
    public static var queryLanes: Int { laneCount }
    /// Floats of scratch that `attendBlock` needs.
    public static var attendScratch: Int { (blockTokens + tileRows) * laneCount }
    /// Rows of a tile: with sixteen columns, what sixteen registers of eight floats hold.
    private static var tileRows: Int { 6 }

    /// Running softmax of up to sixteen queries over one block of latents, which are keys and values at once.
    ///
    /// - queries: [dimension, 16], scaled; latents: [keyCount, dimension] with `stride`, of which the first `width` are the
    ///   values.
    /// - visible: keys of this block that each query may see, [16]; nil when all see all.
    /// - maximum, total: [16]; output: [16, width]. Start them with -∞, 0 and 0.
    /// - queryCount: queries that are there; the output of the others is not meant.
    /// - scratch: `attendScratch` floats.
    public static func attendBlock(
        queries: UnsafePointer<Float>, queryCount: Int, latents: UnsafePointer<Float>, stride: Int, keyCount: Int,
        visible: UnsafePointer<Int32>?, dimension: Int, width: Int, maximum: UnsafeMutablePointer<Float>,
        total: UnsafeMutablePointer<Float>, output: UnsafeMutablePointer<Float>, scratch: UnsafeMutablePointer<Float>
    ) {
        for key in Swift.stride(from: 0, to: keyCount, by: tileRows) {
            scoreTile(
                queries, latents + key * stride, stride, min(tileRows, keyCount - key), dimension,
                scratch + key * laneCount)
        }
        let corrections = softmax(scratch, keyCount, visible, maximum, total)
        for column in Swift.stride(from: 0, to: width, by: laneCount) {
            let columns = min(laneCount, width - column)
            var row = 0
            while row < queryCount {
                let rows = queryCount - row <= 4 ? 4 : min(tileRows, laneCount - row)
                valueTile(
                    scratch + row, latents + column, stride, keyCount, output + row * width + column, width,
                    corrections + row, rows, columns)
                row += rows
            }
        }
    }

    /// q · k of sixteen queries and six latents, d ascending; the last of fewer latents stands in for those that are not
    /// there.
    // Not inlined, nor are the tiles below, so that their sums stay in registers.
    @inline(never)
    private static func scoreTile(
        _ queries: UnsafePointer<Float>, _ latents: UnsafePointer<Float>, _ stride: Int, _ count: Int,
        _ dimension: Int, _ out: UnsafeMutablePointer<Float>
    ) {
        @inline(__always)
        func latent(_ row: Int) -> UnsafePointer<Float> { latents + min(row, count - 1) * stride }
        let (k0, k1, k2) = (latent(0), latent(1), latent(2))
        let (k3, k4, k5) = (latent(3), latent(4), latent(5))
        var (s0, s1, s2, s3, s4, s5) = (Lanes(), Lanes(), Lanes(), Lanes(), Lanes(), Lanes())
        for d in 0..<dimension {
            let q = load(queries + d * laneCount)
            s0.addProduct(Lanes(repeating: k0[d]), q)
            s1.addProduct(Lanes(repeating: k1[d]), q)
            s2.addProduct(Lanes(repeating: k2[d]), q)
            s3.addProduct(Lanes(repeating: k3[d]), q)
            s4.addProduct(Lanes(repeating: k4[d]), q)
            s5.addProduct(Lanes(repeating: k5[d]), q)
        }
        store(s0, out)
        store(s1, out + laneCount)
        store(s2, out + 2 * laneCount)
        store(s3, out + 3 * laneCount)
        store(s4, out + 4 * laneCount)
        store(s5, out + 5 * laneCount)
    }

    /// Turns the scores [count, 16] into weights e^(s - m), zero where a query does not see the key, and returns by what
    /// each query's sums so far are to be multiplied, [16], behind them.
    @inline(__always)
    private static func softmax(
        _ scores: UnsafeMutablePointer<Float>, _ count: Int, _ visible: UnsafePointer<Int32>?,
        _ maximum: UnsafeMutablePointer<Float>, _ total: UnsafeMutablePointer<Float>
    ) -> UnsafeMutablePointer<Float> {
        if let visible {
            let limits = UnsafeRawPointer(visible).loadUnaligned(as: SIMD16<Int32>.self)
            for key in 0..<count {
                let score = load(scores + key * laneCount)
                let isHidden = limits .<= SIMD16<Int32>(repeating: Int32(truncatingIfNeeded: key))
                store(score.replacing(with: -.infinity, where: isHidden), scores + key * laneCount)
            }
        }
        let before = load(maximum)
        var highest = before
        for key in 0..<count {
            let score = load(scores + key * laneCount)
            highest.replace(with: score, where: score .> highest)
        }
        // Who has seen nothing yet must not take -∞ from -∞.
        let base = highest.replacing(with: 0, where: highest .== -.infinity)
        let correction = exponential(before - base)
        var sum = load(total) * correction
        for key in 0..<count {
            let weight = exponential(load(scores + key * laneCount) - base)
            store(weight, scores + key * laneCount)
            sum += weight
        }
        store(highest, maximum)
        store(sum, total)
        let corrections = scores + blockTokens * laneCount
        store(correction, corrections)
        return corrections
    }

    /// out[r, :] ← out[r, :] · factors[r] + Σ_j weights[j, r] · latents[j, :] for the next `rows` queries, j ascending.
    @inline(__always)
    private static func valueTile(
        _ weights: UnsafePointer<Float>, _ latents: UnsafePointer<Float>, _ stride: Int, _ count: Int,
        _ out: UnsafeMutablePointer<Float>, _ outputStride: Int, _ factors: UnsafePointer<Float>, _ rows: Int,
        _ columns: Int
    ) {
        if columns == laneCount, rows == tileRows {
            valueTile6(weights, latents, stride, count, out, outputStride, factors)
        } else if columns == laneCount, rows == 4 {
            valueTile4(weights, latents, stride, count, out, outputStride, factors)
        } else {
            for row in 0..<rows {
                var sum = take(out + row * outputStride, columns) * Lanes(repeating: factors[row])
                for j in 0..<count {
                    sum.addProduct(Lanes(repeating: weights[j * laneCount + row]), take(latents + j * stride, columns))
                }
                put(sum, out + row * outputStride, columns)
            }
        }
    }

    @inline(never)
    private static func valueTile6(
        _ weights: UnsafePointer<Float>, _ latents: UnsafePointer<Float>, _ stride: Int, _ count: Int,
        _ out: UnsafeMutablePointer<Float>, _ outputStride: Int, _ factors: UnsafePointer<Float>
    ) {
        @inline(__always)
        func start(_ row: Int) -> Lanes { load(out + row * outputStride) * Lanes(repeating: factors[row]) }
        var (s0, s1, s2, s3, s4, s5) = (start(0), start(1), start(2), start(3), start(4), start(5))
        for j in 0..<count {
            let v = load(latents + j * stride)
            let w = weights + j * laneCount
            s0.addProduct(Lanes(repeating: w[0]), v)
            s1.addProduct(Lanes(repeating: w[1]), v)
            s2.addProduct(Lanes(repeating: w[2]), v)
            s3.addProduct(Lanes(repeating: w[3]), v)
            s4.addProduct(Lanes(repeating: w[4]), v)
            s5.addProduct(Lanes(repeating: w[5]), v)
        }
        store(s0, out)
        store(s1, out + outputStride)
        store(s2, out + 2 * outputStride)
        store(s3, out + 3 * outputStride)
        store(s4, out + 4 * outputStride)
        store(s5, out + 5 * outputStride)
    }

    @inline(never)
    private static func valueTile4(
        _ weights: UnsafePointer<Float>, _ latents: UnsafePointer<Float>, _ stride: Int, _ count: Int,
        _ out: UnsafeMutablePointer<Float>, _ outputStride: Int, _ factors: UnsafePointer<Float>
    ) {
        @inline(__always)
        func start(_ row: Int) -> Lanes { load(out + row * outputStride) * Lanes(repeating: factors[row]) }
        var (s0, s1, s2, s3) = (start(0), start(1), start(2), start(3))
        for j in 0..<count {
            let v = load(latents + j * stride)
            let w = weights + j * laneCount
            s0.addProduct(Lanes(repeating: w[0]), v)
            s1.addProduct(Lanes(repeating: w[1]), v)
            s2.addProduct(Lanes(repeating: w[2]), v)
            s3.addProduct(Lanes(repeating: w[3]), v)
        }
        store(s0, out)
        store(s1, out + outputStride)
        store(s2, out + 2 * outputStride)
        store(s3, out + 3 * outputStride)
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

    /// Floats of scratch that `multiplyTransposedLanes` needs for `groups` groups of sixteen rows.
    public static func transposedScratch(_ w: WeightMatrix, groups: Int) -> Int { w.rows * (64 + laneCount * groups) }

    /// The same for groups of sixteen rows, one per lane, with the same bits.
    ///
    /// - x: [groups, w.rows, 16]; out: [groups, w.columns, 16], a group `outputStride` floats after the other.
    /// - scratch: `transposedScratch(w, groups:)` floats.
    public static func multiplyTransposedLanes(
        _ x: UnsafePointer<Float>, groups: Int, by w: WeightMatrix, into out: UnsafeMutablePointer<Float>,
        outputStride: Int, scratch: UnsafeMutablePointer<Float>
    ) {
        switch w.elementType {
        case .float32: transposedLanes(Float32Lanes.self, x, groups, w, out, outputStride, scratch)
        case .bfloat16: transposedLanes(BFloat16Lanes.self, x, groups, w, out, outputStride, scratch)
        case .float8E4M3: transposedLanes(Float8E4M3Lanes.self, x, groups, w, out, outputStride, scratch)
        }
    }

    /// A panel of 64 stored bytes of every row is widened once for all groups.
    @inline(__always)
    private static func transposedLanes<Stored: StoredLanes>(
        _: Stored.Type, _ x: UnsafePointer<Float>, _ groups: Int, _ w: WeightMatrix,
        _ out: UnsafeMutablePointer<Float>, _ outputStride: Int, _ scratch: UnsafeMutablePointer<Float>
    ) {
        let (panel, scaled) = (scratch, scratch + w.rows * 64)
        let (width, step) = (Stored.blockCount, w.columns * Stored.byteCount)
        let whole = w.columns / width * width
        scaleLanes(x, groups, w, by: Stored.packedFactor, into: scaled)
        for first in Swift.stride(from: 0, to: whole, by: width) {
            for d in 0..<w.rows {
                let base = w.elements + d * step + first * Stored.byteCount
                for part in 0..<Stored.partCount {
                    store(Stored.lanes(base, part), panel + d * width + part * laneCount)
                }
            }
            for group in 0..<groups {
                let target = out + group * outputStride + first * laneCount
                forEachColumn(of: panel, width, rows: w.rows, times: scaled + group * w.rows * laneCount) {
                    column, sum in
                    let place = Stored.element(column / laneCount, column % laneCount)
                    store(sum * Lanes(repeating: Stored.resultFactor), target + place * laneCount)
                }
            }
        }
        guard whole < w.columns else { return }
        scaleLanes(x, groups, w, by: 1, into: scaled)
        let rest = w.columns - whole
        for d in 0..<w.rows {
            let base = w.elements + d * step + whole * Stored.byteCount
            for column in 0..<rest { panel[d * rest + column] = Stored.one(base + column * Stored.byteCount) }
        }
        for group in 0..<groups {
            let target = out + group * outputStride + whole * laneCount
            forEachColumn(of: panel, rest, rows: w.rows, times: scaled + group * w.rows * laneCount) { column, sum in
                store(sum, target + column * laneCount)
            }
        }
    }

    /// x [groups, w.rows, 16] times the row scales of `w` and a factor.
    private static func scaleLanes(
        _ x: UnsafePointer<Float>, _ groups: Int, _ w: WeightMatrix, by factor: Float,
        into out: UnsafeMutablePointer<Float>
    ) {
        for row in 0..<groups * w.rows {
            let scaled = load(x + row * laneCount) * Lanes(repeating: w.scales.map { $0[row % w.rows] } ?? 1)
            store(scaled * Lanes(repeating: factor), out + row * laneCount)
        }
    }

    /// Calls `body` with every column of a panel [rows, columns] times sixteen rows x [rows, 16].
    @inline(__always)
    private static func forEachColumn(
        of panel: UnsafePointer<Float>, _ columns: Int, rows: Int, times x: UnsafePointer<Float>,
        _ body: (Int, Lanes) -> Void
    ) {
        for first in Swift.stride(from: 0, to: columns, by: tileRows) {
            var sums = InlineArray<6, Lanes>(repeating: .zero)
            let count = min(tileRows, columns - first)
            transposedTile(x, panel + first, columns, rows, count, &sums)
            for column in 0..<count { body(first + column, sums[column]) }
        }
    }

    /// Six columns of a panel [rows, stride] times sixteen rows x [rows, 16]; the last of fewer columns stands in for
    /// those that are not there.
    @inline(never)
    private static func transposedTile(
        _ x: UnsafePointer<Float>, _ panel: UnsafePointer<Float>, _ stride: Int, _ rows: Int, _ count: Int,
        _ out: inout InlineArray<6, Lanes>
    ) {
        let (c1, c2, c3) = (min(1, count - 1), min(2, count - 1), min(3, count - 1))
        let (c4, c5) = (min(4, count - 1), min(5, count - 1))
        var (s0, s1, s2, s3, s4, s5) = (Lanes(), Lanes(), Lanes(), Lanes(), Lanes(), Lanes())
        for d in 0..<rows {
            let a = load(x + d * laneCount)
            let p = panel + d * stride
            s0.addProduct(Lanes(repeating: p[0]), a)
            s1.addProduct(Lanes(repeating: p[c1]), a)
            s2.addProduct(Lanes(repeating: p[c2]), a)
            s3.addProduct(Lanes(repeating: p[c3]), a)
            s4.addProduct(Lanes(repeating: p[c4]), a)
            s5.addProduct(Lanes(repeating: p[c5]), a)
        }
        (out[0], out[1], out[2], out[3], out[4], out[5]) = (s0, s1, s2, s3, s4, s5)
    }
}
