import Numerics

/// The arithmetic of the kernels on tiles that lie in memory, in the order of docs/kernels.md#arithmetic. Device programs call
/// it for their numbers and say separately what the work costs. It allocates nothing after it was made.
///
/// A result depends on its own row, the weights and the tile's `bf`, `bse` and, for V1, `bd1`, never on other rows.
public final class TileArithmetic {
    /// Rows on the wire.
    public let codec: RowCodec
    let problem: MoEProblem
    let kernel: KernelVersion
    private let team: ThreadTeam?
    private let products: FloatScratch
    let block: SharedExpertScratch?

    /// Room for `rows` rows of a tile.
    public init(
        problem: MoEProblem, kernel: KernelVersion, tile: TileConfiguration, rows: Int, computesShared: Bool,
        team: ThreadTeam? = nil
    ) {
        self.problem = problem
        self.kernel = kernel
        self.team = team
        let hidden = problem.shape.hidden
        codec = RowCodec(format: problem.quantization.tokens, hidden: hidden)
        products = FloatScratch(rows * max(tile.bf, tile.bse, hidden))
        block = computesShared ? SharedExpertScratch(rows: rows, hidden: hidden, width: tile.bse) : nil
    }

    /// Widths of the runs of inputs whose dot products are taken, scaled and added one after the other.
    private func groupWidth(_ inputs: Int, isFirst: Bool) -> Int {
        let quantization = problem.quantization
        if quantization.weights == .float8E4M3, quantization.scaleBlock == .inputs128 { return 128 }
        switch kernel {
        case .v1: return quantization.tokens == .float32 ? inputs : 256
        case .v2: return isFirst ? max(1, problem.shape.hidden / quantization.tokens.planes) : inputs
        }
    }

    /// gate and up of a tile: first products over the inputs `columns` of `x`, scaled and added in ascending order.
    ///
    /// - x: [rows, H] as decoded; rowScales: [rows], used when rows are quantised; matrices: W1 and W3, [bf, H];
    ///   gate, up: [rows, bf] with `stride`; `adds` continues what earlier columns left there.
    public func firstProducts(
        _ x: UnsafePointer<Float>, rowScales: UnsafePointer<Float>, rows: Int, gate w1: WeightMatrix,
        up w3: WeightMatrix, columns: Range<Int>, adds: Bool, gate: UnsafeMutablePointer<Float>,
        up: UnsafeMutablePointer<Float>, stride: Int
    ) {
        let width = groupWidth(columns.count, isFirst: true)
        let scales = problem.quantization.tokens.isQuantized ? rowScales : nil
        for (matrix, out) in [(w1, gate), (w3, up)] {
            product(
                x, problem.shape.hidden, scales, rows, matrix, columns, width, adds: adds, into: out, stride: stride)
        }
    }

    /// gate ← silu(gate) · up, [rows, width] with `stride`.
    public func activate(
        gate: UnsafeMutablePointer<Float>, up: UnsafePointer<Float>, rows: Int, width: Int, stride: Int
    ) {
        for row in 0..<rows {
            Kernels.siluMultiply(gate + row * stride, up + row * stride, width, into: gate + row * stride)
        }
    }

    /// y (=|+=) a · W2 of one tile, scaled.
    ///
    /// - a: [rows, columns.upperBound…] with `stride`, its column 0 is input 0 of `w2` [H, …]; y: [rows, H].
    public func secondProduct(
        _ a: UnsafePointer<Float>, rows: Int, stride: Int, down w2: WeightMatrix, columns: Range<Int>, adds: Bool,
        into y: UnsafeMutablePointer<Float>
    ) {
        let width = groupWidth(columns.count, isFirst: false)
        product(a, stride, nil, rows, w2, columns, width, adds: adds, into: y, stride: w2.rows)
    }

    /// One combined row [H]: Σ_k weight_k · y_k in ascending k, then the shared expert, in fp32, rounded once to the format
    /// of results.
    ///
    /// - results: pointers to encoded rows; nil (id -1) adds nothing. `row`: H floats of scratch.
    public func combine(
        results: UnsafeBufferPointer<UnsafeRawPointer?>, weights: UnsafePointer<Float>,
        shared: UnsafePointer<Float>?, scratch row: UnsafeMutablePointer<Float>,
        into out: UnsafeMutablePointer<Float>
    ) {
        let hidden = problem.shape.hidden
        out.update(repeating: 0, count: hidden)
        for (k, result) in results.enumerated() {
            guard let result else { continue }
            codec.decodeResult(result, into: row)
            Kernels.addScaled(out, weights[k], row, hidden)
        }
        if let shared { Kernels.add(out, shared, hidden) }
        guard codec.format != .float32 else { return }
        for i in 0..<hidden { out[i] = BFloat16(out[i]).float }
    }

    private static let outputsPerPart = 64

    /// y[r, o] (=|+=) Σ_groups (Σ_k x[r, k] · w[o, k]) · (rowScale[r] · scale[o, group]).
    func product(
        _ x: UnsafePointer<Float>, _ xStride: Int, _ rowScales: UnsafePointer<Float>?, _ rows: Int, _ w: WeightMatrix,
        _ columns: Range<Int>, _ width: Int, adds: Bool, into y: UnsafeMutablePointer<Float>, stride: Int
    ) {
        forEachPart(w.rows) { outputs in
            var first = columns.lowerBound
            while first < columns.upperBound {
                let group = first..<min(columns.upperBound, first + width)
                let isNew = !adds && first == columns.lowerBound
                let (target, targetStride) = isNew ? (y, stride) : (products.pointer, w.rows)
                Kernels.multiplyUnscaled(x, rows, xStride, w, columns: group, outputs, target, targetStride)
                scale(target, targetStride, rowScales, rows, w, group.lowerBound, outputs)
                if !isNew { add(target, targetStride, rows, outputs, to: y, stride) }
                first = group.upperBound
            }
        }
    }

    func scale(
        _ y: UnsafeMutablePointer<Float>, _ stride: Int, _ rowScales: UnsafePointer<Float>?, _ rows: Int,
        _ w: WeightMatrix, _ column: Int, _ outputs: Range<Int>
    ) {
        guard let scales = w.scales else { return }
        let groups = problem.quantization.scaleBlock.groups(inputs: w.columns)
        let group = groups == 1 ? 0 : column / 128
        for row in 0..<rows {
            let rowScale = rowScales?[row] ?? 1
            for output in outputs { y[row * stride + output] *= rowScale * scales[output * groups + group] }
        }
    }

    private func add(
        _ part: UnsafePointer<Float>, _ partStride: Int, _ rows: Int, _ outputs: Range<Int>,
        to y: UnsafeMutablePointer<Float>, _ stride: Int
    ) {
        for row in 0..<rows {
            Kernels.add(
                y + row * stride + outputs.lowerBound, part + row * partStride + outputs.lowerBound, outputs.count)
        }
    }

    private func forEachPart(_ outputs: Int, _ body: (Range<Int>) -> Void) {
        guard let team else {
            body(0..<outputs)
            return
        }
        let size = Self.outputsPerPart
        team.run((outputs + size - 1) / size) { part in body(part * size..<min(outputs, (part + 1) * size)) }
    }
}

extension WeightMatrix {
    /// Rows `range` with their scales, `groups` per row.
    func rows(_ range: Range<Int>, _ groups: Int) -> WeightMatrix {
        WeightMatrix(
            rows: range.count, columns: columns, elementType: elementType,
            elements: elements + range.lowerBound * columns * elementType.byteCount,
            scales: scales.map { $0 + range.lowerBound * groups })
    }
}
