import FusedMoE

/// Bytes a step needs besides weights and state, for its largest row count.
enum WorkspaceBytes {
    /// HBM scratch of the fused kernel (docs/kernels.md#buffers): landing zones of rows and results by bank and local expert,
    /// returned results by bank and expert, quantised rows.
    static func kernel(_ call: KernelCall) -> Int {
        let problem = call.problem
        let (tokens, hidden) = (problem.quantization.tokens, problem.shape.hidden)
        let (row, result) = (tokens.rowBytes(hidden: hidden), tokens.resultRowBytes(hidden: hidden))
        let own = problem.rowsPerDevice(call.kernel)
        let tiles = max(1, own / max(1, call.tile.bt))
        let banks = call.kernel == .v1 ? 1 : max(2, tiles)
        let zone = (call.tile.bt * problem.devices + call.tile.bts - 1) / call.tile.bts * call.tile.bts
        return banks * problem.expertsPerDevice * zone * (row + result)
            + banks * problem.shape.experts * call.tile.bt * result + own * (row + result)
    }

    /// Activations of the widest layer: rows in bf16 before and after, query, key and value in bf16 and fp32, the dense
    /// MLP's halves, and logits of up to 64 rows.
    static func activations(_ shape: ModelShape, tensorParallel: Int, rows: Int) -> Int {
        let width = 3 * shape.heads * shape.headWidth / tensorParallel
        let mlp = 3 * shape.denseIntermediate / tensorParallel
        return rows * (4 * shape.hidden + max(6 * width, 2 * mlp)) + 64 * 4 * shape.vocabulary
    }
}
