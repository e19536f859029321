import Numerics

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
