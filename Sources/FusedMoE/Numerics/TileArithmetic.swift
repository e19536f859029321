import Numerics

/// The arithmetic of the kernels on tiles that lie in memory, exactly as spec section 4 orders it. Device programs call
/// it for their numbers and say separately what the work costs. It allocates nothing after it was made.
///
/// A result depends on its own row, the weights and the tile's `bf`, `bse` and, for V1, `bd1`, never on other rows.
public final class TileArithmetic {
    /// Rows on the wire.
    public let codec: RowCodec
    private let problem: MoEProblem
    private let kernel: KernelVersion
    private let team: ThreadTeam?
    private let products: FloatScratch
    private let block: SharedExpertScratch?

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

    /// One combined row: Σ_k weight_k · y_k in ascending k, then the shared expert, in fp32, rounded once to the format
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
    private func product(
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

    private func scale(
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

extension TileArithmetic {
    /// The shared expert's block: adds to `out` [rows, H] what the inputs `columns` of its width give.
    ///
    /// - x: [rows, H] as decoded with `rowScales`; matrices: the whole shared expert or just the block, with `columns`
    ///   the block in it; `isFirst` starts `out` anew.
    ///
    /// V2 accumulates blocks in bf16 and, by the tokens' format, requantises the activations (mode 1), scales weights
    /// to bf16 first (mode 2), or multiplies bf16 by bf16 (mode 3). V1 and fp32 rows accumulate in fp32.
    public func sharedBlock(
        _ x: UnsafePointer<Float>, rowScales: UnsafePointer<Float>, rows: Int, matrices: ExpertMatrices,
        columns: Range<Int>, isFirst: Bool, into out: UnsafeMutablePointer<Float>
    ) {
        guard let block else { return }
        let hidden = problem.shape.hidden
        let width = columns.count
        var (w1, w3) = (matrices.gate.rows(columns, groups(hidden)), matrices.up.rows(columns, groups(hidden)))
        var w2 = matrices.down
        var inputs = columns
        if isWeightDequantized {
            w1 = block.dequantized(w1, 0..<hidden, problem.quantization.scaleBlock, into: block.gateWeights)
            w3 = block.dequantized(w3, 0..<hidden, problem.quantization.scaleBlock, into: block.upWeights)
            w2 = block.dequantized(w2, columns, problem.quantization.scaleBlock, into: block.downWeights)
            inputs = 0..<width
        }
        let (gate, up) = (block.gate.pointer, block.up.pointer)
        sharedFirstProducts(x, rowScales, rows, w1, into: gate, width)
        sharedFirstProducts(x, rowScales, rows, w3, into: up, width)
        activate(gate: gate, up: up, rows: rows, width: width, stride: width)
        let scales = prepareActivations(gate, rows, width)
        let result = isFirst ? out : block.result.pointer
        let group = problem.quantization.scaleBlock == .inputs128 && w2.scales != nil ? 128 : width
        product(
            gate - inputs.lowerBound, width, scales, rows, w2, inputs, group, adds: false, into: result, stride: hidden)
        if !isFirst { Kernels.add(out, result, rows * hidden) }
        guard roundsBlocks else { return }
        for i in 0..<rows * hidden { out[i] = BFloat16(out[i]).float }
    }

    private func groups(_ inputs: Int) -> Int { problem.quantization.scaleBlock.groups(inputs: inputs) }

    /// True for V2's rows in bf16 or fp8.
    private var roundsBlocks: Bool { kernel == .v2 && codec.format != .float32 }

    /// Mode 2.
    private var isWeightDequantized: Bool {
        kernel == .v2 && codec.format == .bfloat16 && problem.quantization.weights == .float8E4M3
    }

    /// Planes are added unscaled, then scaled once; block scales cannot wait that long.
    private func sharedFirstProducts(
        _ x: UnsafePointer<Float>, _ rowScales: UnsafePointer<Float>, _ rows: Int, _ w: WeightMatrix,
        into out: UnsafeMutablePointer<Float>, _ width: Int
    ) {
        let hidden = problem.shape.hidden
        let scales = problem.quantization.tokens.isQuantized ? rowScales : nil
        let isBlocked = w.scales != nil && groups(hidden) > 1
        let plane = kernel == .v1 ? hidden : hidden / problem.quantization.tokens.planes
        let unscaled = WeightMatrix(
            rows: w.rows, columns: w.columns, elementType: w.elementType, elements: w.elements)
        product(
            x, hidden, scales, rows, isBlocked ? w : unscaled, 0..<hidden, isBlocked ? 128 : plane, adds: false,
            into: out, stride: width)
        if !isBlocked { scale(out, width, scales, rows, w, 0, 0..<width) }
    }

    /// What the second product takes: requantised values with their scales, bf16 values, or fp32 as it is.
    private func prepareActivations(
        _ a: UnsafeMutablePointer<Float>, _ rows: Int, _ width: Int
    ) -> UnsafePointer<Float>? {
        guard roundsBlocks, let block else { return nil }
        guard codec.format.isQuantized else {
            for i in 0..<rows * width { a[i] = BFloat16(a[i]).float }
            return nil
        }
        for row in 0..<rows {
            block.rowScales.pointer[row] = RowCodec.quantize(a + row * width, width, into: a + row * width)
        }
        return UnsafePointer(block.rowScales.pointer)
    }
}

/// Floats that live as long as their owner.
final class FloatScratch: @unchecked Sendable {
    let pointer: UnsafeMutablePointer<Float>

    init(_ count: Int) {
        pointer = .allocate(capacity: max(1, count))
        pointer.initialize(repeating: 0, count: max(1, count))
    }

    deinit { pointer.deallocate() }
}

/// Memory of one block of the shared expert.
final class SharedExpertScratch {
    let gate, up, result, rowScales, gateWeights, upWeights, downWeights: FloatScratch

    init(rows: Int, hidden: Int, width: Int) {
        gate = FloatScratch(rows * width)
        up = FloatScratch(rows * width)
        result = FloatScratch(rows * hidden)
        rowScales = FloatScratch(rows)
        gateWeights = FloatScratch(width * hidden)
        upWeights = FloatScratch(width * hidden)
        downWeights = FloatScratch(width * hidden)
    }

    /// weight · scale rounded to bf16, for the inputs `columns`.
    func dequantized(
        _ w: WeightMatrix, _ columns: Range<Int>, _ block: ScaleBlock, into scratch: FloatScratch
    ) -> WeightMatrix {
        let groups = block.groups(inputs: w.columns)
        for row in 0..<w.rows {
            for column in columns {
                let byte = w.elements.load(fromByteOffset: row * w.columns + column, as: UInt8.self)
                let scale = w.scales?[row * groups + (groups == 1 ? 0 : column / 128)] ?? 1
                scratch.pointer[row * columns.count + column - columns.lowerBound] =
                    BFloat16(Float8E4M3(bitPattern: byte).float * scale).float
            }
        }
        return WeightMatrix(
            rows: w.rows, columns: columns.count, elementType: .float32, elements: scratch.pointer)
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
