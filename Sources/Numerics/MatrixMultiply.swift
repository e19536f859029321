/// Namespace of the compute kernels. They allocate nothing and check nothing: callers validate shapes.
public enum Kernels {}

extension Kernels {
    /// y[r, o] = Σ_k x[r, k] · w[o, k], times the row scale of `w` if it has one.
    ///
    /// - x: [rowCount, w.columns] with `rowStride`; y: [rowCount, w.rows] with `outputStride` (both in floats).
    ///
    /// The bits of y[r, o] depend on row r of x and row o of w alone: sixteen lanes over k, one fused accumulator,
    /// one fixed horizontal sum, whatever tile or thread computes it.
    public static func multiply(
        _ x: UnsafePointer<Float>, rowCount: Int, rowStride: Int, by w: WeightMatrix,
        into y: UnsafeMutablePointer<Float>, outputStride: Int, team: ThreadTeam
    ) {
        guard rowCount > 0, w.rows > 0 else { return }
        let work = rowCount * w.rows * w.columns
        let perPart = max(8, (w.rows / (team.threadCount * 4) + 7) / 8 * 8)
        let parts = work < 65_536 ? 1 : (w.rows + perPart - 1) / perPart
        let size = parts == 1 ? w.rows : perPart
        team.run(parts) { part in
            let outputs = (part * size)..<min(w.rows, (part + 1) * size)
            multiply(x, rowCount, rowStride, w, outputs, y, outputStride)
        }
    }

    /// `multiply` on the calling thread alone, for the outputs `outputs`.
    public static func multiply(
        _ x: UnsafePointer<Float>, _ rowCount: Int, _ rowStride: Int, _ w: WeightMatrix, _ outputs: Range<Int>,
        _ y: UnsafeMutablePointer<Float>, _ outputStride: Int
    ) {
        switch w.elementType {
        case .float32: tiles(Float32Lanes.self, x, rowCount, rowStride, w, w.columns, outputs, y, outputStride)
        case .bfloat16: tiles(BFloat16Lanes.self, x, rowCount, rowStride, w, w.columns, outputs, y, outputStride)
        case .float8E4M3: tiles(Float8E4M3Lanes.self, x, rowCount, rowStride, w, w.columns, outputs, y, outputStride)
        }
        guard let scales = w.scales else { return }
        for row in 0..<rowCount {
            for output in outputs { y[row * outputStride + output] *= scales[output] }
        }
    }

    /// The part of the product over the inputs `columns`, without the scales of `w`: y[r, o] = Σ_k x[r, k] · w[o, k].
    ///
    /// - x: [rowCount, w.columns] with `rowStride`; y: [rowCount, w.rows] with `outputStride`.
    public static func multiplyUnscaled(
        _ x: UnsafePointer<Float>, _ rowCount: Int, _ rowStride: Int, _ w: WeightMatrix, columns: Range<Int>,
        _ outputs: Range<Int>, _ y: UnsafeMutablePointer<Float>, _ outputStride: Int
    ) {
        let part = WeightMatrix(
            rows: w.rows, columns: columns.count, elementType: w.elementType,
            elements: w.elements + columns.lowerBound * w.elementType.byteCount)
        let x = x + columns.lowerBound
        switch w.elementType {
        case .float32: tiles(Float32Lanes.self, x, rowCount, rowStride, part, w.columns, outputs, y, outputStride)
        case .bfloat16: tiles(BFloat16Lanes.self, x, rowCount, rowStride, part, w.columns, outputs, y, outputStride)
        case .float8E4M3:
            tiles(Float8E4M3Lanes.self, x, rowCount, rowStride, part, w.columns, outputs, y, outputStride)
        }
    }

    /// The same product with fp32 rows of any stride as the right side: y[r, o] = Σ_k x[r, k] · w[o, k].
    @inline(__always)
    static func dotRows(
        _ x: UnsafePointer<Float>, _ rowCount: Int, _ rowStride: Int, _ w: UnsafePointer<Float>, _ wStride: Int,
        _ outputs: Int, _ columns: Int, _ y: UnsafeMutablePointer<Float>, _ outputStride: Int
    ) {
        let matrix = WeightMatrix(rows: outputs, columns: columns, elementType: .float32, elements: w)
        tiles(Float32Lanes.self, x, rowCount, rowStride, matrix, wStride, 0..<outputs, y, outputStride)
    }

    /// Rows are taken in blocks that stay in the second-level cache while all outputs pass by.
    @inline(__always)
    private static func tiles<Stored: StoredLanes>(
        _ stored: Stored.Type, _ x: UnsafePointer<Float>, _ rowCount: Int, _ rowStride: Int, _ w: WeightMatrix,
        _ wStride: Int, _ outputs: Range<Int>, _ y: UnsafeMutablePointer<Float>, _ outputStride: Int
    ) {
        let rowBlock = max(4, min(128, 98_304 / max(1, w.columns)) / 4 * 4)
        var first = 0
        while first < rowCount {
            let last = min(rowCount, first + rowBlock)
            var output = outputs.lowerBound
            while output + 4 <= outputs.upperBound {
                let weights = w.elements + output * wStride * Stored.byteCount
                var row = first
                while row + 4 <= last {
                    tile4x4(
                        stored, x + row * rowStride, rowStride, weights, wStride, w.columns,
                        y + row * outputStride + output, outputStride)
                    row += 4
                }
                while row < last {
                    tile1x4(
                        stored, x + row * rowStride, weights, wStride, w.columns, y + row * outputStride + output)
                    row += 1
                }
                output += 4
            }
            while output < outputs.upperBound {
                let weights = w.elements + output * wStride * Stored.byteCount
                for row in first..<last {
                    y[row * outputStride + output] = dot(stored, x + row * rowStride, weights, w.columns)
                }
                output += 1
            }
            first = last
        }
    }

    @inline(__always)
    private static func dot<Stored: StoredLanes>(
        _ stored: Stored.Type, _ x: UnsafePointer<Float>, _ w: UnsafeRawPointer, _ columns: Int
    ) -> Float {
        var sum = Lanes()
        var k = 0
        while k + laneCount <= columns {
            sum.addProduct(load(x + k), Stored.load(w + k * Stored.byteCount))
            k += laneCount
        }
        if k < columns {
            sum.addProduct(
                loadPartial(x + k, columns - k), loadPartial(stored, w + k * Stored.byteCount, columns - k))
        }
        return horizontalSum(sum)
    }

    @inline(__always)
    private static func tile1x4<Stored: StoredLanes>(
        _ stored: Stored.Type, _ x: UnsafePointer<Float>, _ w: UnsafeRawPointer, _ wStride: Int, _ columns: Int,
        _ y: UnsafeMutablePointer<Float>
    ) {
        let step = wStride * Stored.byteCount
        var (s0, s1, s2, s3) = (Lanes(), Lanes(), Lanes(), Lanes())
        var k = 0
        while k + laneCount <= columns {
            let a = load(x + k)
            let p = w + k * Stored.byteCount
            s0.addProduct(a, Stored.load(p))
            s1.addProduct(a, Stored.load(p + step))
            s2.addProduct(a, Stored.load(p + 2 * step))
            s3.addProduct(a, Stored.load(p + 3 * step))
            k += laneCount
        }
        if k < columns {
            let rest = columns - k
            let a = loadPartial(x + k, rest)
            let p = w + k * Stored.byteCount
            s0.addProduct(a, loadPartial(stored, p, rest))
            s1.addProduct(a, loadPartial(stored, p + step, rest))
            s2.addProduct(a, loadPartial(stored, p + 2 * step, rest))
            s3.addProduct(a, loadPartial(stored, p + 3 * step, rest))
        }
        (y[0], y[1], y[2], y[3]) = (horizontalSum(s0), horizontalSum(s1), horizontalSum(s2), horizontalSum(s3))
    }

    @inline(__always)
    private static func tile4x4<Stored: StoredLanes>(
        _ stored: Stored.Type, _ x: UnsafePointer<Float>, _ xStride: Int, _ w: UnsafeRawPointer, _ wStride: Int,
        _ columns: Int, _ y: UnsafeMutablePointer<Float>, _ yStride: Int
    ) {
        let step = wStride * Stored.byteCount
        var (s00, s01, s02, s03) = (Lanes(), Lanes(), Lanes(), Lanes())
        var (s10, s11, s12, s13) = (Lanes(), Lanes(), Lanes(), Lanes())
        var (s20, s21, s22, s23) = (Lanes(), Lanes(), Lanes(), Lanes())
        var (s30, s31, s32, s33) = (Lanes(), Lanes(), Lanes(), Lanes())
        @inline(__always)
        func accumulate(
            _ a: (Lanes, Lanes, Lanes, Lanes), _ b: (Lanes, Lanes, Lanes, Lanes)
        ) {
            s00.addProduct(a.0, b.0)
            s01.addProduct(a.0, b.1)
            s02.addProduct(a.0, b.2)
            s03.addProduct(a.0, b.3)
            s10.addProduct(a.1, b.0)
            s11.addProduct(a.1, b.1)
            s12.addProduct(a.1, b.2)
            s13.addProduct(a.1, b.3)
            s20.addProduct(a.2, b.0)
            s21.addProduct(a.2, b.1)
            s22.addProduct(a.2, b.2)
            s23.addProduct(a.2, b.3)
            s30.addProduct(a.3, b.0)
            s31.addProduct(a.3, b.1)
            s32.addProduct(a.3, b.2)
            s33.addProduct(a.3, b.3)
        }
        var k = 0
        while k + laneCount <= columns {
            let p = w + k * Stored.byteCount
            let q = x + k
            accumulate(
                (load(q), load(q + xStride), load(q + 2 * xStride), load(q + 3 * xStride)),
                (Stored.load(p), Stored.load(p + step), Stored.load(p + 2 * step), Stored.load(p + 3 * step)))
            k += laneCount
        }
        if k < columns {
            let rest = columns - k
            let p = w + k * Stored.byteCount
            let q = x + k
            accumulate(
                (
                    loadPartial(q, rest), loadPartial(q + xStride, rest), loadPartial(q + 2 * xStride, rest),
                    loadPartial(q + 3 * xStride, rest)
                ),
                (
                    loadPartial(stored, p, rest), loadPartial(stored, p + step, rest),
                    loadPartial(stored, p + 2 * step, rest), loadPartial(stored, p + 3 * step, rest)
                ))
        }
        (y[0], y[1], y[2], y[3]) = (
            horizontalSum(s00), horizontalSum(s01), horizontalSum(s02), horizontalSum(s03)
        )
        let y1 = y + yStride
        (y1[0], y1[1], y1[2], y1[3]) = (
            horizontalSum(s10), horizontalSum(s11), horizontalSum(s12), horizontalSum(s13)
        )
        let y2 = y1 + yStride
        (y2[0], y2[1], y2[2], y2[3]) = (
            horizontalSum(s20), horizontalSum(s21), horizontalSum(s22), horizontalSum(s23)
        )
        let y3 = y2 + yStride
        (y3[0], y3[1], y3[2], y3[3]) = (
            horizontalSum(s30), horizontalSum(s31), horizontalSum(s32), horizontalSum(s33)
        )
    }
}
