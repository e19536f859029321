import Numerics

/// The three matrices of one SwiGLU expert, or of a tile of it. Each is stored [out, in]; fp8 matrices have scales
/// [out, groups of inputs] as the problem's scale block says.
public struct ExpertMatrices: Sendable {
    /// W1 [I, H].
    public var gate: WeightMatrix
    /// W3 [I, H].
    public var up: WeightMatrix
    /// W2 [H, I].
    public var down: WeightMatrix

    /// These three matrices.
    public init(gate: WeightMatrix, up: WeightMatrix, down: WeightMatrix) {
        self.gate = gate
        self.up = up
        self.down = down
    }
}

/// The real numbers of one call. It borrows its memory; whoever made it keeps that alive during the call.
public struct MoETensors: Sendable {
    /// Tokens [T, H] in fp32; kernels whose rows are bf16 round them first. Nobody writes them during the call.
    public nonisolated(unsafe) let tokens: UnsafePointer<Float>
    /// Every routed expert.
    public let experts: [ExpertMatrices]
    /// The shared expert.
    public let shared: ExpertMatrices?

    /// Tokens [T, H] in fp32 and weights [out, in] of a call.
    public init(tokens: UnsafePointer<Float>, experts: [ExpertMatrices], shared: ExpertMatrices? = nil) {
        self.tokens = tokens
        self.experts = experts
        self.shared = shared
    }

    /// Refuses matrices that do not have the problem's shape or element type.
    ///
    /// - Throws: `FusedMoEError` with code `.tensors` that names the matrix.
    public func check(_ problem: MoEProblem, options: KernelOptions) throws(FusedMoEError) {
        guard experts.count == problem.shape.experts else {
            throw FusedMoEError(.tensors, "there are \(experts.count) experts, the layer has \(problem.shape.experts)")
        }
        for (index, expert) in experts.enumerated() {
            try Self.check(expert, "expert \(index)", problem, width: problem.shape.intermediate)
        }
        guard options.computesShared(problem.shape) else { return }
        guard let shared else { throw FusedMoEError(.tensors, "the shared expert's matrices are missing") }
        try Self.check(shared, "the shared expert", problem, width: problem.shape.sharedIntermediate)
    }

    private static func check(
        _ expert: ExpertMatrices, _ name: String, _ problem: MoEProblem, width: Int
    ) throws(FusedMoEError) {
        let hidden = problem.shape.hidden
        let expected = [("W1", expert.gate, width, hidden), ("W3", expert.up, width, hidden)]
        for (matrix, weights, rows, columns) in expected + [("W2", expert.down, hidden, width)] {
            guard weights.rows == rows, weights.columns == columns else {
                throw FusedMoEError(
                    .tensors,
                    "\(matrix) of \(name) is [\(weights.rows), \(weights.columns)], the layer needs [\(rows), \(columns)]"
                )
            }
            let type = problem.quantization.weights
            guard weights.elementType == type, (type == .float8E4M3) == (weights.scales != nil) else {
                throw FusedMoEError(
                    .tensors,
                    "\(matrix) of \(name) is \(weights.elementType.rawValue), the call needs \(type.rawValue)"
                        + (type == .float8E4M3 ? " with scales" : " without scales"))
            }
        }
    }
}
