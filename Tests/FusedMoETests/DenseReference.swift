import FusedMoE
import Numerics

/// The layer by its definition, in fp32 and one token at a time: what every kernel is measured against.
enum DenseReference {
    /// out[t] = Σ_k weight · W2(silu(W1 x) · (W3 x)) + shared(x), [T, H], with weights scaled back to fp32 first.
    static func run(
        problem: MoEProblem, options: KernelOptions, tensors: MoETensors, routing: RoutingTable
    ) throws(FusedMoEError) -> [Float] {
        try tensors.check(problem.validated(), options: options)
        try routing.check(problem)
        let hidden = problem.shape.hidden
        var output = [Float](repeating: 0, count: problem.tokens * hidden)
        let experts = tensors.experts.map { Dense($0, problem) }
        let shared = options.computesShared(problem.shape) ? tensors.shared.map { Dense($0, problem) } : nil
        for token in 0..<problem.tokens {
            let x = Array(UnsafeBufferPointer(start: tensors.tokens + token * hidden, count: hidden))
            for slot in token * routing.topK..<(token + 1) * routing.topK where routing.expertIDs[slot] >= 0 {
                let y = experts[Int(routing.expertIDs[slot])].apply(x)
                for i in 0..<hidden { output[token * hidden + i] += routing.weights[slot] * y[i] }
            }
            guard let y = shared?.apply(x) else { continue }
            for i in 0..<hidden { output[token * hidden + i] += y[i] }
        }
        return output
    }

    /// Three fp32 matrices, [out, in].
    private struct Dense {
        let gate, up, down: [Float]

        init(_ expert: ExpertMatrices, _ problem: MoEProblem) {
            let block = problem.quantization.scaleBlock
            gate = Self.scaled(expert.gate, block)
            up = Self.scaled(expert.up, block)
            down = Self.scaled(expert.down, block)
        }

        private static func scaled(_ w: WeightMatrix, _ block: ScaleBlock) -> [Float] {
            let groups = block.groups(inputs: w.columns)
            let unscaled = WeightMatrix(
                rows: w.rows, columns: w.columns, elementType: w.elementType, elements: w.elements)
            return [Float](unsafeUninitializedCapacity: w.rows * w.columns) { values, count in
                count = w.rows * w.columns
                guard let base = values.baseAddress else { return }
                for row in 0..<w.rows {
                    let target = base + row * w.columns
                    Kernels.copyRow(row, of: unscaled, into: target)
                    guard let scales = w.scales else { continue }
                    for column in 0..<w.columns {
                        target[column] *= scales[row * groups + (groups == 1 ? 0 : column / 128)]
                    }
                }
            }
        }

        func apply(_ x: [Float]) -> [Float] {
            let a = zip(Self.multiply(gate, x), Self.multiply(up, x)).map { g, u in
                g / (1 + Kernels.exponential(-g)) * u
            }
            return Self.multiply(down, a)
        }

        private static func multiply(_ matrix: [Float], _ x: [Float]) -> [Float] {
            var y = [Float](repeating: 0, count: matrix.count / x.count)
            matrix.withUnsafeBytes { matrix in
                guard let elements = matrix.baseAddress else { return }
                let w = WeightMatrix(rows: y.count, columns: x.count, elementType: .float32, elements: elements)
                Kernels.multiply(x, 1, x.count, w, 0..<y.count, &y, y.count)
            }
            return y
        }
    }
}
