/// y[r, o] = Σ_k x[r, k] · w[o, k] on one thread, for rows x that are packed for `Stored`: they end in zeros up to a whole
/// block.
struct DotProduct<Stored: StoredLanes> {
    let x: UnsafePointer<Float>
    let xStride: Int
    let rowCount: Int
    /// First stored row, and bytes from one to the next.
    let w: UnsafeRawPointer
    let step: Int
    let columns: Int
    let y: UnsafeMutablePointer<Float>
    let yStride: Int

    private typealias Tile = DotTile<Stored>

    private var blocks: Int { columns / Stored.blockCount }
    private var rest: Int { columns % Stored.blockCount }

    /// Computes outputs `outputs` of all rows.
    func run(_ outputs: Range<Int>) {
        // A temporary allocation of this alignment would come from the heap.
        var accumulators = InlineArray<16, Lanes>(repeating: .zero)
        withUnsafeMutableBytes(of: &accumulators) { sums in
            guard let sums = sums.baseAddress else { return }
            if rowCount < 4 { streams(outputs, sums) } else { panels(outputs, sums) }
        }
    }

    /// For few rows, where memory is what counts: four runs of neighbouring stored rows at a time, each read from
    /// beginning to end, because that is what the hardware fetches ahead.
    private func streams(_ outputs: Range<Int>, _ sums: UnsafeMutableRawPointer) {
        var first = outputs.lowerBound
        while first < outputs.upperBound {
            let count = min(64, outputs.upperBound - first)
            guard count >= 4 else {
                let rows = Tile.Rows(w + first * step, step: step, count: count)
                for row in 0..<rowCount { put(dots(row, rows, sums), row, first, count) }
                return
            }
            let run = count / 4
            for output in first..<first + run {
                let rows = Tile.Rows(w + output * step, step: run * step)
                for row in 0..<rowCount {
                    let four = dots(row, rows, sums)
                    let out = y + row * yStride + output
                    (out[0], out[run], out[2 * run], out[3 * run]) = (four[0], four[1], four[2], four[3])
                }
            }
            first += 4 * run
        }
    }

    /// For many rows: a panel of outputs stays in the second-level cache while four rows at a time, which stay in the
    /// first-level one, pass by.
    private func panels(_ outputs: Range<Int>, _ sums: UnsafeMutableRawPointer) {
        let width = Self.panelOutputs(step)
        var first = outputs.lowerBound
        while first < outputs.upperBound {
            let last = min(outputs.upperBound, first + width)
            var row = 0
            while row < rowCount {
                let isWhole = row + 4 <= rowCount
                for output in stride(from: first, to: last, by: 4) {
                    let count = min(4, last - output)
                    let rows = Tile.Rows(w + output * step, step: step, count: count)
                    if isWhole {
                        put(dots4(row, rows, sums), row, output, count)
                    } else {
                        put(dots(row, rows, sums), row, output, count)
                    }
                }
                row += isWhole ? 4 : 1
            }
            first = last
        }
    }

    /// Outputs whose stored rows of `step` bytes take an eighth of the second-level cache.
    static func panelOutputs(_ step: Int) -> Int { max(4, min(128, Kernels.panelBytes / max(1, step)) / 4 * 4) }

    @inline(__always)
    private func dots(_ row: Int, _ rows: Tile.Rows, _ sums: UnsafeMutableRawPointer) -> SIMD4<Float> {
        let source = x + row * xStride
        Tile.accumulate1(source, rows, blocks: blocks, sums, continues: false)
        if rest > 0 {
            withTail(source, rows) { tail, stored in
                Tile.accumulate1(tail, stored, blocks: 1, sums, continues: true)
            }
        }
        return horizontalSums4(sums)
    }

    @inline(__always)
    private func dots4(_ row: Int, _ rows: Tile.Rows, _ sums: UnsafeMutableRawPointer) -> Lanes {
        let source = x + row * xStride
        Tile.accumulate4(source, xStride, rows, blocks: blocks, sums, continues: false)
        if rest > 0 {
            withTail(source, rows) { tail, stored in
                Tile.accumulate4(tail, xStride, stored, blocks: 1, sums, continues: true)
            }
        }
        return horizontalSums16(sums)
    }

    /// Calls `body` with the last, partial block of x and of four stored rows, those filled up with zeros.
    @inline(never)
    private func withTail(
        _ source: UnsafePointer<Float>, _ rows: Tile.Rows,
        _ body: (UnsafePointer<Float>, Tile.Rows) -> Void
    ) {
        let tail = source + blocks * Stored.blockCount
        var blocksOfStored = InlineArray<4, Lanes>(repeating: .zero)
        withUnsafeMutableBytes(of: &blocksOfStored) { stored in
            guard let base = stored.baseAddress else { return }
            for (index, row) in [rows.first, rows.second, rows.third, rows.fourth].enumerated() {
                (base + 64 * index).copyMemory(from: row + 64 * blocks, byteCount: rest * Stored.byteCount)
            }
            let storedRows = Tile.Rows(UnsafeRawPointer(base), step: 64)
            body(tail, storedRows)
        }
    }

    @inline(__always)
    private func put(_ sums: SIMD4<Float>, _ row: Int, _ output: Int, _ count: Int) {
        let out = y + row * yStride + output
        for index in 0..<count { out[index] = sums[index] }
    }

    @inline(__always)
    private func put(_ sums: Lanes, _ row: Int, _ output: Int, _ count: Int) {
        let out = y + row * yStride + output
        guard count == 4 else {
            for index in 0..<4 {
                for column in 0..<count { out[index * yStride + column] = sums[4 * index + column] }
            }
            return
        }
        func put(_ index: Int) {
            let first = 4 * index
            UnsafeMutableRawPointer(out + index * yStride).storeBytes(
                of: SIMD4(sums[first], sums[first + 1], sums[first + 2], sums[first + 3]), as: SIMD4<Float>.self)
        }
        put(0)
        put(1)
        put(2)
        put(3)
    }
}
