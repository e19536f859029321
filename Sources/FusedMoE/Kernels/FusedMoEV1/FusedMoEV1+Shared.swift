import Numerics
import TPU

extension FusedMoEV1 {
    /// One block of the shared expert's width: rows and weights stream in slices of H, two at a time.
    func sharedExpert(
        _ block: Int, _ index: Int, _ core: Core, _ state: FusedMoEV1State
    ) async throws(DeviceError) {
        guard let buffers = layout.shared, let matrices = layout.inputs.shared else { return }
        core.enter(layout.phases.shared)
        let work = SharedBlock(block: block, index: index, first: hidden / tile.bd1, second: hidden / tile.bd2)
        try startShared(work, 0, buffers, matrices, core)
        for step in 0..<work.first + work.second {
            if step + 1 < work.first + work.second { try startShared(work, step + 1, buffers, matrices, core) }
            try await waitForShared(work, step, buffers, core)
            try spendOnShared(work, step, buffers, core)
        }
        try sharedProducts(work, matrices, core, state)
    }

    /// A block of the shared expert for the rows of an outer tile, and how many slices its products take.
    private struct SharedBlock {
        let block: Int
        let index: Int
        let first: Int
        let second: Int

        /// Slot of a step: each kind of slice alternates by itself.
        func slot(_ step: Int) -> Int { (step < first ? step : step - first) & 1 }
    }

    private func startShared(
        _ work: SharedBlock, _ step: Int, _ buffers: FusedMoEV1Layout.SharedBuffers,
        _ matrices: KernelInputs.ExpertBuffers, _ core: Core
    ) throws(DeviceError) {
        let slot = work.slot(step)
        let row = work.block * tile.bse
        guard step < work.first else {
            let slice = step - work.first
            return try buffers.down.load(
                matrices.down, rows: slice * tile.bd2..<(slice + 1) * tile.bd2, columns: row..<row + tile.bse,
                into: slot, core)
        }
        let width = buffers.rows.rowBytes
        try core.copy(
            layout.inputs.tokens.rows(work.index * tile.bt, tile.bt, bytes: step * width..<(step + 1) * width),
            to: buffers.rows.rows(slot * tile.bt, tile.bt), signalling: buffers.rowsLoaded[slot])
        try startPlanes(matrices.gate, rows: row..<row + tile.bse, step, buffers.gate, slot, core)
        try startPlanes(matrices.up, rows: row..<row + tile.bse, step, buffers.up, slot, core)
    }

    private func waitForShared(
        _ work: SharedBlock, _ step: Int, _ buffers: FusedMoEV1Layout.SharedBuffers, _ core: Core
    ) async throws(DeviceError) {
        let slot = work.slot(step)
        guard step < work.first else { return try await buffers.down.wait(slot, core) }
        try await core.wait(buffers.rowsLoaded[slot], bytes: tile.bt * buffers.rows.rowBytes)
        try await buffers.gate.wait(slot, core)
        try await buffers.up.wait(slot, core)
    }

    private func spendOnShared(
        _ work: SharedBlock, _ step: Int, _ buffers: FusedMoEV1Layout.SharedBuffers, _ core: Core
    ) throws(DeviceError) {
        let slot = work.slot(step)
        if step < work.first {
            try core.read(buffers.rows.rows(slot * tile.bt, tile.bt))
            try buffers.gate.matrix(slot, core)
            try buffers.up.matrix(slot, core)
        } else {
            try buffers.down.matrix(slot, core)
        }
        try core.write(buffers.sum.rows(0, tile.bt))
        guard !options.ablations.contains(.matmul) else { return }
        let time =
            step < work.first
            ? 2 * costs.firstProduct(rows: tile.bt, inputs: tile.bd1, outputs: tile.bse)
            : costs.secondProduct(rows: tile.bt, inputs: tile.bse, outputs: tile.bd2)
        core.spend(time + costs.call, .matrix)
    }

    /// The block's numbers in one go: slices of H only divide fp32 sums, so the matrices are taken whole from HBM.
    private func sharedProducts(
        _ work: SharedBlock, _ matrices: KernelInputs.ExpertBuffers, _ core: Core, _ state: FusedMoEV1State
    ) throws(DeviceError) {
        guard let arithmetic, let gate = try stored(matrices.gate, hidden, core),
            let up = try stored(matrices.up, hidden, core),
            let down = try stored(matrices.down, problem.shape.sharedIntermediate, core),
            let tokens = try core.read(layout.inputs.tokens.rows(work.index * tile.bt, tile.bt))
        else { return }
        for row in 0..<tile.bt {
            _ = arithmetic.codec.decode(
                tokens + row * layout.inputs.tokens.rowBytes, into: state.rows.pointer + row * hidden)
        }
        arithmetic.sharedBlock(
            state.rows.pointer, rowScales: state.rowScales.pointer, rows: tile.bt,
            matrices: ExpertMatrices(gate: gate, up: up, down: down),
            columns: work.block * tile.bse..<(work.block + 1) * tile.bse, isFirst: work.block == 0,
            into: state.shared.pointer)
    }

    /// A whole matrix in HBM; nil when it is only a shape.
    private func stored(
        _ matrix: KernelInputs.MatrixBuffers, _ columns: Int, _ core: Core
    ) throws(DeviceError) -> WeightMatrix? {
        let rows = matrix.elements.rowCount
        guard let elements = try core.read(matrix.elements.rows(0, rows)) else { return nil }
        let scales = try matrix.scales.flatMap { buffer throws(DeviceError) in try core.read(buffer.rows(0, rows)) }
        return WeightMatrix(
            rows: rows, columns: columns, elementType: problem.quantization.weights, elements: elements,
            scales: scales?.assumingMemoryBound(to: Float.self))
    }
}
