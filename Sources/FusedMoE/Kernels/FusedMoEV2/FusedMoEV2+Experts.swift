import Numerics
import TPU

extension FusedMoEV2 {
    private var widthTiles: Int { problem.shape.intermediate / tile.bf }

    /// FFN(b, i): waits for the expert's rows and computes them, `bts` at a time, whatever part of them is real.
    func ffn(
        _ position: Int, of active: [Int], _ bank: Int, _ core: Core, _ state: FusedMoEV2State
    ) async throws(DeviceError) {
        let expert = active[position]
        let slot = bank * local + expert
        let rows = state.counts[bank].size(expert: core.device * local + expert)
        core.enter(layout.phases.waitForRows)
        if !options.ablations.contains(.scatter) {
            try await core.wait(layout.scatterReceived[slot], bytes: rows * layout.landing.rowBytes)
            extendScatterStage(from: core.now, to: core.now)
        }
        core.enter(layout.phases.experts)
        guard !options.ablations.contains(.ffn) else { return }
        let tiles = (rows + tile.bts - 1) / tile.bts
        let next = tiles == 1 && position + 1 < active.count ? active[position + 1] : nil
        for index in 0..<tiles {
            let work = ExpertTile(
                expert: expert, slot: widthTiles == 1 ? position & 1 : 0, isFirst: index == 0, next: next,
                rows: min(tile.bts, rows - index * tile.bts))
            try await ffnTile(work, firstRow: slot * layout.landingRows + index * tile.bts, core, state)
        }
    }

    /// One tile of an expert's rows.
    private struct ExpertTile {
        let expert: Int
        /// Where its first weight tile lies.
        let slot: Int
        let isFirst: Bool
        /// The expert whose weights may be fetched before this one is done.
        let next: Int?
        /// Rows that are real.
        let rows: Int
    }

    private func ffnTile(
        _ work: ExpertTile, firstRow: Int, _ core: Core, _ state: FusedMoEV2State
    ) async throws(DeviceError) {
        try core.copy(
            layout.landing.rows(firstRow, tile.bts), to: layout.rowTile.rows(0, tile.bts),
            signalling: layout.rowsStaged, hasPriority: true)
        try await core.wait(layout.rowsStaged, bytes: tile.bts * layout.landing.rowBytes)
        try decodeRows(work.rows, core, state)
        if !(work.isFirst && state.prefetched == work.expert) { try startWeights(work.expert, 0, work.slot, core) }
        state.prefetched = nil
        if widthTiles > 1 { try startWeights(work.expert, 1, 1, core) }
        if widthTiles == 1, let next = work.next { try prefetch(next, 1 - work.slot, core, state) }
        for index in 0..<widthTiles {
            let slot = widthTiles == 1 ? work.slot : index & 1
            try await computeProducts(index, slot, work.rows, core, state)
            if index + 2 < widthTiles { try startWeights(work.expert, index + 2, slot, core) }
            if index == widthTiles - 2, widthTiles % 2 == 0, let next = work.next {
                try prefetch(next, 0, core, state)
            }
        }
        try await storeResults(work.rows, firstRow, core)
    }

    private func prefetch(_ expert: Int, _ slot: Int, _ core: Core, _ state: FusedMoEV2State) throws(DeviceError) {
        try startWeights(expert, 0, slot, core)
        state.prefetched = expert
    }

    /// fp32 values and scales of the staged rows; the columns that carried the scale become zero.
    private func decodeRows(_ rows: Int, _ core: Core, _ state: FusedMoEV2State) throws(DeviceError) {
        let bytes = try core.read(layout.rowTile.rows(0, tile.bts))
        guard let arithmetic, let bytes else { return }
        for row in 0..<rows {
            state.rowScales.pointer[row] = arithmetic.codec.decode(
                bytes + row * layout.rowTile.rowBytes, into: state.rows.pointer + row * hidden)
        }
    }

    /// The two parts of a tile of the intermediate width: gate and up, then activation and second product.
    private func computeProducts(
        _ index: Int, _ slot: Int, _ rows: Int, _ core: Core, _ state: FusedMoEV2State
    ) async throws(DeviceError) {
        let calls = Picoseconds(tile.bts / tile.btc)
        let half = costs.firstProduct(rows: tile.btc, inputs: hidden, outputs: tile.bf) * calls
        if tile.bt <= 16 {
            // Few rows: begin with the gate as soon as W1 is here.
            try await layout.gateWeights.wait(slot, core)
            spendOnFirstProducts(half + costs.call * calls / 2, core)
            try await layout.upWeights.wait(slot, core)
            spendOnFirstProducts(half + costs.call * calls / 2, core)
        } else {
            try await layout.gateWeights.wait(slot, core)
            try await layout.upWeights.wait(slot, core)
            spendOnFirstProducts(2 * half + costs.call * calls, core)
        }
        try ffn1(slot, rows, core, state)
        try await layout.downWeights.wait(slot, core)
        core.spend(
            (costs.secondProduct(rows: tile.btc, inputs: tile.bf, outputs: hidden) + costs.call) * calls, .matrix)
        try ffn2(slot, rows, adds: index > 0, core)
    }

    private func spendOnFirstProducts(_ time: Picoseconds, _ core: Core) {
        guard !options.ablations.contains(.matmul) else { return }
        core.spend(time, .matrix)
        firstProductTime += time
    }

    private func ffn1(_ slot: Int, _ rows: Int, _ core: Core, _ state: FusedMoEV2State) throws(DeviceError) {
        let w1 = try layout.gateWeights.matrix(slot, core)
        let w3 = try layout.upWeights.matrix(slot, core)
        let gate = try core.write(layout.gate.rows(0, tile.bts))
        let up = try core.write(layout.up.rows(0, tile.bts))
        guard let arithmetic, let w1, let w3, let gate, let up else { return }
        arithmetic.firstProducts(
            state.rows.pointer, rowScales: state.rowScales.pointer, rows: rows, gate: w1, up: w3, columns: 0..<hidden,
            adds: false, gate: gate.assumingMemoryBound(to: Float.self), up: up.assumingMemoryBound(to: Float.self),
            stride: tile.bf)
    }

    private func ffn2(_ slot: Int, _ rows: Int, adds: Bool, _ core: Core) throws(DeviceError) {
        let w2 = try layout.downWeights.matrix(slot, core)
        let gate = try core.write(layout.gate.rows(0, tile.bts))
        let up = try core.read(layout.up.rows(0, tile.bts))
        let sum = try core.write(layout.accumulator.rows(0, tile.bts))
        guard let arithmetic, let w2, let gate, let up, let sum else { return }
        let activated = gate.assumingMemoryBound(to: Float.self)
        arithmetic.activate(
            gate: activated, up: up.assumingMemoryBound(to: Float.self), rows: rows, width: tile.bf, stride: tile.bf)
        arithmetic.secondProduct(
            activated, rows: rows, stride: tile.bf, down: w2, columns: 0..<tile.bf, adds: adds,
            into: sum.assumingMemoryBound(to: Float.self))
    }

    /// The accumulated rows, rounded once, to the device's results in HBM.
    private func storeResults(_ rows: Int, _ firstRow: Int, _ core: Core) async throws(DeviceError) {
        core.spend(costs.vector(elements: tile.bts * hidden, operations: 2), .vector)
        let sums = try core.read(layout.accumulator.rows(0, tile.bts))
        let stage = try core.write(layout.stage.rows(0, tile.bts))
        if let arithmetic, let sums, let stage {
            for row in 0..<rows {
                arithmetic.codec.encodeResult(
                    sums.assumingMemoryBound(to: Float.self) + row * hidden, into: stage + row * layout.stage.rowBytes)
            }
        }
        try core.copy(
            layout.stage.rows(0, tile.bts), to: layout.results.rows(firstRow, tile.bts),
            signalling: layout.resultsStored)
        try await core.wait(layout.resultsStored, bytes: tile.bts * layout.results.rowBytes)
    }
}

extension FusedMoEV2 {
    /// Planes that W1 and W3 are copied in, each a copy of its own.
    private var planes: Int { problem.quantization.tokens.planes }

    /// Starts W1, W3 and W2 of a tile of the intermediate width, or of a block of the shared expert's, into a slot.
    func startWeights(
        _ matrices: KernelInputs.ExpertBuffers, _ width: Range<Int>, _ slot: Int, _ core: Core
    ) throws(DeviceError) {
        try layout.gateWeights.load(
            matrices.gate, rows: width, columns: 0..<hidden, into: slot, pieces: planes, core)
        try layout.upWeights.load(matrices.up, rows: width, columns: 0..<hidden, into: slot, pieces: planes, core)
        try layout.downWeights.load(matrices.down, rows: 0..<hidden, columns: width, into: slot, pieces: 2, core)
    }

    /// Starts the weights of an expert's tile `index` of the intermediate width.
    private func startWeights(_ expert: Int, _ index: Int, _ slot: Int, _ core: Core) throws(DeviceError) {
        let width = index * tile.bf..<(index + 1) * tile.bf
        try startWeights(layout.inputs.experts[expert], width, slot, core)
    }
}
