import Numerics
import TPU

extension ResidentKernel {
    private var widthTiles: Int { problem.shape.intermediate / tile.bf }

    /// FFN(b, i): waits for the expert's rows and computes them, `bts` at a time, whatever part of them is real.
    func computeExpert(
        _ position: Int, of active: [Int], _ bank: Int, _ core: Core, _ state: ResidentState
    ) async throws(DeviceError) {
        let expert = active[position]
        let slot = bank * local + expert
        let rows = state.start(bank, source: core.deviceCount, expert: core.device * local + expert)
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
            try await computeTile(work, firstRow: slot * layout.landingRows + index * tile.bts, core, state)
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

    private func computeTile(
        _ work: ExpertTile, firstRow: Int, _ core: Core, _ state: ResidentState
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

    private func prefetch(_ expert: Int, _ slot: Int, _ core: Core, _ state: ResidentState) throws(DeviceError) {
        try startWeights(expert, 0, slot, core)
        state.prefetched = expert
    }

    /// fp32 values and scales of the staged rows; the columns that carried the scale become zero.
    private func decodeRows(_ rows: Int, _ core: Core, _ state: ResidentState) throws(DeviceError) {
        let bytes = try core.read(layout.rowTile.rows(0, tile.bts))
        guard let arithmetic, let bytes else { return }
        for row in 0..<rows {
            state.rowScales.pointer[row] = arithmetic.codec.decode(
                bytes + row * layout.rowTile.rowBytes, into: state.rows.pointer + row * hidden)
        }
    }

    /// The two parts of a tile of the intermediate width: gate and up, then activation and second product.
    private func computeProducts(
        _ index: Int, _ slot: Int, _ rows: Int, _ core: Core, _ state: ResidentState
    ) async throws(DeviceError) {
        let calls = Picoseconds(tile.bts / tile.btc)
        let half = costs.firstProduct(rows: tile.btc, inputs: hidden, outputs: tile.bf) * calls
        if tile.bt <= 16 {
            // Few rows: begin with the gate as soon as W1 is here.
            try await waitForWeights(layout.gateWeights, slot, core)
            spendOnFirstProducts(half + costs.call * calls / 2, core)
            try await waitForWeights(layout.upWeights, slot, core)
            spendOnFirstProducts(half + costs.call * calls / 2, core)
        } else {
            try await waitForWeights(layout.gateWeights, slot, core)
            try await waitForWeights(layout.upWeights, slot, core)
            spendOnFirstProducts(2 * half + costs.call * calls, core)
        }
        try firstProducts(slot, rows, core, state)
        try await waitForWeights(layout.downWeights, slot, core)
        core.spend(
            (costs.secondProduct(rows: tile.btc, inputs: tile.bf, outputs: hidden) + costs.call) * calls, .matrix)
        try secondProduct(slot, rows, adds: index > 0, core)
    }

    private func spendOnFirstProducts(_ time: Picoseconds, _ core: Core) {
        guard !options.ablations.contains(.matmul) else { return }
        core.spend(time, .matrix)
        firstProductTime += time
    }

    private func firstProducts(_ slot: Int, _ rows: Int, _ core: Core, _ state: ResidentState) throws(DeviceError) {
        let w1 = try weights(layout.gateWeights, slot, columns: hidden, core)
        let w3 = try weights(layout.upWeights, slot, columns: hidden, core)
        let gate = try core.write(layout.gate.rows(0, tile.bts))
        let up = try core.write(layout.up.rows(0, tile.bts))
        guard let arithmetic, let w1, let w3, let gate, let up else { return }
        arithmetic.firstProducts(
            state.rows.pointer, rowScales: state.rowScales.pointer, rows: rows, gate: w1, up: w3, columns: 0..<hidden,
            adds: false, gate: gate.assumingMemoryBound(to: Float.self), up: up.assumingMemoryBound(to: Float.self),
            stride: tile.bf)
    }

    private func secondProduct(_ slot: Int, _ rows: Int, adds: Bool, _ core: Core) throws(DeviceError) {
        let w2 = try weights(layout.downWeights, slot, columns: tile.bf, core)
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

extension ResidentKernel {
    /// Planes that W1 and W3 are copied in, each a copy of its own.
    private var planes: Int { problem.quantization.tokens.planes }

    /// Starts W1, W3 and W2 of a tile of the intermediate width.
    private func startWeights(_ expert: Int, _ index: Int, _ slot: Int, _ core: Core) throws(DeviceError) {
        let matrices = layout.inputs.experts[expert]
        try startRows(matrices.gate, index * tile.bf, tile.bf, layout.gateWeights, slot, core)
        try startRows(matrices.up, index * tile.bf, tile.bf, layout.upWeights, slot, core)
        try startColumns(matrices.down, index * tile.bf, tile.bf, layout.downWeights, slot, core)
    }

    /// Output rows of W1 or W3 into a slot.
    func startRows(
        _ matrix: KernelInputs.MatrixBuffers, _ first: Int, _ count: Int, _ slots: WeightSlots,
        _ slot: Int, _ core: Core
    ) throws(DeviceError) {
        guard !options.ablations.contains(.weights) else { return }
        try core.copy(
            matrix.elements.rows(first, count), to: slots.elements.rows(slot * slots.rows, count),
            signalling: slots.loaded[slot], pieces: planes)
        guard let scales = matrix.scales, let target = slots.scales else { return }
        try core.copy(
            scales.rows(first, count), to: target.rows(slot * slots.rows, count), signalling: slots.loaded[slot])
    }

    /// Input columns of W2 into a slot.
    func startColumns(
        _ matrix: KernelInputs.MatrixBuffers, _ first: Int, _ count: Int, _ slots: WeightSlots,
        _ slot: Int, _ core: Core
    ) throws(DeviceError) {
        guard !options.ablations.contains(.weights) else { return }
        let element = problem.quantization.weights.byteCount
        try core.copy(
            matrix.elements.rows(0, hidden, bytes: first * element..<(first + count) * element),
            to: slots.elements.rows(slot * slots.rows, hidden, bytes: 0..<count * element),
            signalling: slots.loaded[slot], pieces: 2)
        guard let scales = matrix.scales, let target = slots.scales else { return }
        let group = scaleColumns(first, count, of: matrix)
        try core.copy(
            scales.rows(0, hidden, bytes: 4 * group.lowerBound..<4 * group.upperBound),
            to: target.rows(slot * slots.rows, hidden, bytes: 0..<4 * group.count), signalling: slots.loaded[slot])
    }

    /// Scale groups of input columns: all columns share one unless scales are per block.
    private func scaleColumns(_ first: Int, _ count: Int, of matrix: KernelInputs.MatrixBuffers) -> Range<Int> {
        guard problem.quantization.scaleBlock == .inputs128 else { return 0..<1 }
        return first / 128..<(first + count + 127) / 128
    }

    func waitForWeights(
        _ slots: WeightSlots, _ slot: Int, _ core: Core, rows: Int? = nil, columns: Int? = nil
    ) async throws(DeviceError) {
        guard !options.ablations.contains(.weights) else { return }
        let count = rows ?? slots.rows
        let element = problem.quantization.weights.byteCount
        var bytes = count * (columns.map { $0 * element } ?? slots.elements.rowBytes)
        if let scales = slots.scales {
            bytes += count * (columns.map { 4 * problem.quantization.scaleBlock.groups(inputs: $0) } ?? scales.rowBytes)
        }
        try await core.wait(slots.loaded[slot], bytes: bytes)
    }

    /// The matrix in a slot; nil when it is only a shape.
    func weights(
        _ slots: WeightSlots, _ slot: Int, columns: Int, _ core: Core, rows: Int? = nil
    ) throws(DeviceError) -> WeightMatrix? {
        let count = rows ?? slots.rows
        let elements = try core.read(slots.elements.rows(slot * slots.rows, count))
        var scales: UnsafeRawPointer?
        if let buffer = slots.scales { scales = try core.read(buffer.rows(slot * slots.rows, count)) }
        guard let elements else { return nil }
        return WeightMatrix(
            rows: count, columns: columns, elementType: problem.quantization.weights, elements: elements,
            scales: scales?.assumingMemoryBound(to: Float.self))
    }
}
