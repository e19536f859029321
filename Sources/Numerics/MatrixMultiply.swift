/// Namespace of the compute kernels. They check nothing: callers validate shapes.
public enum Kernels {}

extension Kernels {
    /// Bytes of stored rows that are worked on at a time.
    static var panelBytes: Int { 1 << 17 }

    /// y[r, o] = Σ_k x[r, k] · w[o, k], times the row scale of `w` if it has one.
    ///
    /// - x: [rowCount, w.columns] with `rowStride`; y: [rowCount, w.rows] with `outputStride` (both in floats).
    ///
    /// The bits of y[r, o] depend on row r of x and row o of w alone, whatever tile or thread computes it (`DotTile`).
    public static func multiply(
        _ x: UnsafePointer<Float>, rowCount: Int, rowStride: Int, by w: WeightMatrix,
        into y: UnsafeMutablePointer<Float>, outputStride: Int, team: ThreadTeam
    ) {
        guard rowCount > 0, w.rows > 0 else { return }
        let stride = packedWidth(w)
        team.reserve(shared: 4 * rowCount * stride, perWorker: scratchBytes(w))
        let packed = team.sharedScratch.assumingMemoryBound(to: Float.self)
        let run = max(1, 16_384 / stride)
        team.run((rowCount + run - 1) / run) { part in
            for row in part * run..<min(rowCount, (part + 1) * run) {
                pack(x + row * rowStride, for: w, into: packed + row * stride)
            }
        }
        let work = rowCount * w.rows * w.columns
        let perPart = max(16, (w.rows / (team.threadCount * 8) + 15) / 16 * 16)
        let size = work < 65_536 ? w.rows : perPart
        team.run((w.rows + size - 1) / size) { part, worker in
            let outputs = part * size..<min(w.rows, (part + 1) * size)
            multiplyPacked(
                packed, rowCount, stride, w, outputs, y, outputStride, scratch: team.workerScratch(worker))
        }
    }

    /// Floats of a row that is packed for `w`.
    public static func packedWidth(_ w: WeightMatrix) -> Int {
        let block = w.elementType.blockCount
        return (w.columns + block - 1) / block * block
    }

    /// Writes `x` [w.columns] in the order in which the elements of `w` are read, filled up with zeros to
    /// `packedWidth(w)`.
    public static func pack(_ x: UnsafePointer<Float>, for w: WeightMatrix, into out: UnsafeMutablePointer<Float>) {
        switch w.elementType {
        case .float32: pack(Float32Lanes.self, x, w.columns, out)
        case .bfloat16: pack(BFloat16Lanes.self, x, w.columns, out)
        case .float8E4M3: pack(Float8E4M3Lanes.self, x, w.columns, out)
        }
    }

    @inline(__always)
    private static func pack<Stored: StoredLanes>(
        _: Stored.Type, _ x: UnsafePointer<Float>, _ columns: Int, _ out: UnsafeMutablePointer<Float>
    ) {
        let whole = columns / Stored.blockCount * Stored.blockCount
        for first in stride(from: 0, to: whole, by: Stored.blockCount) {
            for part in 0..<Stored.partCount {
                for lane in 0..<laneCount {
                    out[first + part * laneCount + lane] =
                        x[first + Stored.element(part, lane)] * Stored.packedFactor
                }
            }
        }
        guard whole < columns else { return }
        for part in 0..<Stored.partCount {
            for lane in 0..<laneCount {
                let column = whole + Stored.element(part, lane)
                out[whole + part * laneCount + lane] = column < columns ? x[column] * Stored.packedFactor : 0
            }
        }
    }

    /// Bytes of scratch that a thread needs to multiply by `w`.
    public static func scratchBytes(_ w: WeightMatrix) -> Int {
        w.elementType == .float8E4M3 ? max(panelBytes, 8 * packedWidth(w)) : 64
    }

    /// `multiply` on the calling thread alone, for the outputs `outputs` and rows [rowCount, rowStride] that are packed for
    /// `w`; y [rowCount, outputStride].
    public static func multiplyPacked(
        _ x: UnsafePointer<Float>, _ rowCount: Int, _ rowStride: Int, _ w: WeightMatrix, _ outputs: Range<Int>,
        _ y: UnsafeMutablePointer<Float>, _ outputStride: Int, scratch: UnsafeMutableRawPointer
    ) {
        sum(x, rowCount, rowStride, w, w.columns, outputs, y, outputStride, scratch)
        scale(y, rowCount, outputStride, w, outputs, by: w.scales)
    }

    /// `multiply` on the calling thread alone, for the outputs `outputs`; packs the rows x [rowCount, rowStride] for itself.
    public static func multiply(
        _ x: UnsafePointer<Float>, _ rowCount: Int, _ rowStride: Int, _ w: WeightMatrix, _ outputs: Range<Int>,
        _ y: UnsafeMutablePointer<Float>, _ outputStride: Int
    ) {
        multiplyUnscaled(x, rowCount, rowStride, w, columns: 0..<w.columns, outputs, y, outputStride)
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
        let stride = packedWidth(part)
        let scratch = UnsafeMutableRawPointer.allocate(
            byteCount: scratchBytes(part) + 4 * rowCount * stride, alignment: 64)
        defer { scratch.deallocate() }
        let packed = (scratch + scratchBytes(part)).assumingMemoryBound(to: Float.self)
        for row in 0..<rowCount {
            pack(x + row * rowStride + columns.lowerBound, for: part, into: packed + row * stride)
        }
        sum(packed, rowCount, stride, part, w.columns, outputs, y, outputStride, scratch)
        scale(y, rowCount, outputStride, part, outputs, by: nil)
    }

    /// The dot products alone; stored rows are `rowElements` elements apart.
    private static func sum(
        _ x: UnsafePointer<Float>, _ rowCount: Int, _ rowStride: Int, _ w: WeightMatrix, _ rowElements: Int,
        _ outputs: Range<Int>, _ y: UnsafeMutablePointer<Float>, _ outputStride: Int,
        _ scratch: UnsafeMutableRawPointer
    ) {
        func product<Stored: StoredLanes>(_: Stored.Type) -> DotProduct<Stored> {
            DotProduct<Stored>(
                x: x, xStride: rowStride, rowCount: rowCount, w: w.elements, step: rowElements * Stored.byteCount,
                columns: w.columns, y: y, yStride: outputStride)
        }
        switch w.elementType {
        case .float32: product(Float32Lanes.self).run(outputs)
        case .bfloat16: product(BFloat16Lanes.self).run(outputs)
        case .float8E4M3:
            if rowCount < 8 {
                product(Float8E4M3Lanes.self).run(outputs)
            } else {
                sumWidened(x, rowCount, rowStride, w, rowElements, outputs, y, outputStride, scratch)
            }
        }
    }

    /// Takes what reading `w` left out into the sums, and the row scales if there are any.
    private static func scale(
        _ y: UnsafeMutablePointer<Float>, _ rowCount: Int, _ stride: Int, _ w: WeightMatrix, _ outputs: Range<Int>,
        by scales: UnsafePointer<Float>?
    ) {
        let factor = w.elementType == .float8E4M3 ? Float8E4M3Lanes.resultFactor : 1
        guard scales != nil || factor != 1 else { return }
        for row in 0..<rowCount {
            for output in outputs { y[row * stride + output] *= factor * (scales?[output] ?? 1) }
        }
    }

    /// For many rows a panel of 8-bit rows is widened to bf16 once.
    private static func sumWidened(
        _ x: UnsafePointer<Float>, _ rowCount: Int, _ rowStride: Int, _ w: WeightMatrix, _ rowElements: Int,
        _ outputs: Range<Int>, _ y: UnsafeMutablePointer<Float>, _ outputStride: Int,
        _ scratch: UnsafeMutableRawPointer
    ) {
        let columns = packedWidth(w)
        let width = DotProduct<BFloat16Lanes>.panelOutputs(2 * columns)
        var first = outputs.lowerBound
        while first < outputs.upperBound {
            let count = min(width, outputs.upperBound - first)
            for output in 0..<count {
                widen(w.elements + (first + output) * rowElements, w.columns, scratch + output * 2 * columns)
            }
            DotProduct<BFloat16Lanes>(
                x: x, xStride: rowStride, rowCount: rowCount, w: UnsafeRawPointer(scratch), step: 2 * columns,
                columns: columns, y: y + first, yStride: outputStride
            ).run(0..<count)
            first += count
        }
    }

    private static func widen(_ row: UnsafeRawPointer, _ columns: Int, _ out: UnsafeMutableRawPointer) {
        func widenBlock(_ source: UnsafeRawPointer, _ target: UnsafeMutableRawPointer) {
            target.storeBytes(of: Float8E4M3Lanes.widened(source, 0), as: SIMD16<UInt32>.self)
            target.storeBytes(of: Float8E4M3Lanes.widened(source, 1), toByteOffset: 64, as: SIMD16<UInt32>.self)
        }
        let whole = columns / 64 * 64
        for first in stride(from: 0, to: whole, by: 64) { widenBlock(row + first, out + 2 * first) }
        guard whole < columns else { return }
        var last = SIMD64<UInt8>()
        withUnsafeMutableBytes(of: &last) { bytes in
            bytes.copyMemory(from: UnsafeRawBufferPointer(start: row + whole, count: columns - whole))
            if let base = bytes.baseAddress { widenBlock(base, out + 2 * whole) }
        }
    }
}
