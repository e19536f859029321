import Numerics
import TPU

extension FusedMoEV2 {
    /// SHARED(b): the shared expert on the device's own rows, while the scatter flies. It uses the x tile and the weight
    /// slots of the routed experts; every block's weights are fetched again for every outer tile.
    func sharedExpert(_ bank: Int, _ core: Core, _ state: FusedMoEV2State) async throws(DeviceError) {
        guard let matrices = layout.inputs.shared else { return }
        core.enter(layout.phases.shared)
        let rows = tile.bt
        let source = sentRows
        try core.copy(
            source.rows(bank * tile.bt, rows), to: layout.rowTile.rows(0, rows), signalling: layout.rowsStaged,
            hasPriority: true)
        try await core.wait(layout.rowsStaged, bytes: rows * source.rowBytes)
        try decodeShared(rows, core, state)
        let blocks = problem.shape.sharedIntermediate / tile.bse
        try startShared(matrices, 0, core)
        for block in 0..<blocks {
            if block + 1 < blocks { try startShared(matrices, block + 1, core) }
            try await waitForShared(block & 1, core)
            spendOnShared(rows, core)
            try computeBlock(block, rows, bank, core, state)
        }
    }

    private func startShared(_ matrices: KernelInputs.ExpertBuffers, _ block: Int, _ core: Core) throws(DeviceError) {
        try startWeights(matrices, block * tile.bse..<(block + 1) * tile.bse, block & 1, core)
    }

    private func waitForShared(_ slot: Int, _ core: Core) async throws(DeviceError) {
        try await layout.gateWeights.wait(slot, rows: tile.bse, core)
        try await layout.upWeights.wait(slot, rows: tile.bse, core)
        try await layout.downWeights.wait(slot, columns: tile.bse, core)
    }

    /// One dot with all rows of the outer tile: no calls per row chunk.
    private func spendOnShared(_ rows: Int, _ core: Core) {
        guard !options.ablations.contains(.matmul) else { return }
        // Requantised activations meet fp8 weights at the rate of the first products.
        let second =
            isQuantized
            ? costs.firstProduct(rows: rows, inputs: tile.bse, outputs: hidden)
            : costs.secondProduct(rows: rows, inputs: tile.bse, outputs: hidden)
        core.spend(
            2 * costs.firstProduct(rows: rows, inputs: hidden, outputs: tile.bse) + second + 2 * costs.call, .matrix)
        if isQuantized { core.spend(costs.quantize(rows: rows, hidden: tile.bse), .vector) }
        // The sum over blocks lies in the bf16 output: unpacked and packed again for every block.
        core.spend(costs.vector(elements: rows * hidden, operations: 2), .vector)
    }

    private func decodeShared(_ rows: Int, _ core: Core, _ state: FusedMoEV2State) throws(DeviceError) {
        let bytes = try core.read(layout.rowTile.rows(0, rows))
        guard let arithmetic, let bytes else { return }
        for row in 0..<rows {
            state.rowScales.pointer[row] = arithmetic.codec.decode(
                bytes + row * layout.rowTile.rowBytes, into: state.rows.pointer + row * hidden)
        }
    }

    private func computeBlock(
        _ block: Int, _ rows: Int, _ bank: Int, _ core: Core, _ state: FusedMoEV2State
    ) throws(DeviceError) {
        let slot = block & 1
        let gate = try layout.gateWeights.matrix(slot, rows: tile.bse, core)
        let up = try layout.upWeights.matrix(slot, rows: tile.bse, core)
        let down = try sharedDown(slot, core, state)
        try core.write(layout.outputTile.rows(bank % banks * tile.bt, rows))
        guard let arithmetic, let gate, let up, let down else { return }
        arithmetic.sharedBlock(
            state.rows.pointer, rowScales: state.rowScales.pointer, rows: rows,
            matrices: ExpertMatrices(gate: gate, up: up, down: down), columns: 0..<tile.bse, isFirst: block == 0,
            into: state.shared.pointer + bank % banks * tile.bt * hidden)
    }

    /// The block of W2 in a slot that is as wide as a routed tile, as a matrix of its own.
    private func sharedDown(_ slot: Int, _ core: Core, _ state: FusedMoEV2State) throws(DeviceError) -> WeightMatrix? {
        guard let wide = try layout.downWeights.matrix(slot, core) else { return nil }
        guard tile.bse < tile.bf else { return wide }
        let element = problem.quantization.weights.byteCount
        let (block, scaleBlock) = (state.block, problem.quantization.scaleBlock)
        let (groups, wideGroups) = (scaleBlock.groups(inputs: tile.bse), scaleBlock.groups(inputs: tile.bf))
        for row in 0..<hidden {
            UnsafeMutableRawPointer(block.pointer).advanced(by: row * tile.bse * element).copyMemory(
                from: wide.elements + row * tile.bf * element, byteCount: tile.bse * element)
            for group in 0..<groups where wide.scales != nil {
                state.blockScales.pointer[row * groups + group] = wide.scales?[row * wideGroups + group] ?? 1
            }
        }
        return WeightMatrix(
            rows: hidden, columns: tile.bse, elementType: wide.elementType, elements: block.pointer,
            scales: wide.scales == nil ? nil : UnsafePointer(state.blockScales.pointer))
    }
}
