import Numerics
import TPU

/// Kernel V2: tokens and accumulators stay in VMEM, weights stream through two slots, scatter and gather fly while
/// experts compute (docs/kernels.md#v2, which has the steps K, P and Q).
// One value is used by the programs of all devices; they run on one thread.
final class FusedMoEV2 {
    let problem: MoEProblem
    let tile: TileConfiguration
    let options: KernelOptions
    let routing: RoutingTable
    let layout: FusedMoEV2Layout
    let costs: CostModel
    /// Nil when tensors are only shapes.
    let arithmetic: TileArithmetic?
    let banks: Int
    let tokenTiles: Int
    let local: Int
    let hidden: Int
    /// Core time in the first products: sum over devices.
    var firstProductTime: Picoseconds = 0
    /// From the first row that was sent to the last that was waited for, over all devices.
    var scatterStage: Range<Picoseconds>?

    init(
        _ slice: Slice, problem: MoEProblem, tile: TileConfiguration, options: KernelOptions, routing: RoutingTable,
        computes: Bool
    ) throws(DeviceError) {
        self.problem = problem
        self.tile = tile
        self.options = options
        self.routing = routing
        layout = try FusedMoEV2Layout(slice, problem: problem, tile: tile, options: options)
        costs = CostModel(slice.parameters, problem: problem, kernel: .v2, options: options)
        arithmetic =
            computes
            ? TileArithmetic(
                problem: problem, kernel: .v2, tile: tile, rows: max(tile.bts, tile.bt),
                computesShared: options.computesShared(problem.shape)) : nil
        banks = tile.banks(problem, kernel: .v2)
        tokenTiles = tile.tokenTiles(problem, kernel: .v2)
        local = problem.expertsPerDevice
        hidden = problem.shape.hidden
    }

    /// The program of one device.
    func run(_ core: Core) async throws(DeviceError) {
        let state = FusedMoEV2State(self)
        try fetchTopK(0, core)
        if isQuantized, isPrequantizedPerTile { try await prequant(0, core, state) }
        core.enter(layout.phases.barrier)
        try await core.barrier()
        if isQuantized, !isPrequantizedPerTile { try await prequantAll(core, state) }
        for bank in 0..<tokenTiles {
            try await expertPass(bank, core, state)
            if tokenTiles == 1 { try await resultPass(bank, core, state) }
        }
        if tokenTiles > 1 {
            for bank in 0..<tokenTiles { try await resultPass(bank, core, state) }
        }
        core.enter(layout.phases.store)
        try await core.wait(layout.outputStored, bytes: tokenTiles * tile.bt * layout.output.rowBytes)
    }

    private var isPrequantizedPerTile: Bool { options.prequantization == .perTile }

    /// P1 to P7: everything of the next outer tile that can fly is started before this one is computed.
    private func expertPass(_ bank: Int, _ core: Core, _ state: FusedMoEV2State) async throws(DeviceError) {
        let hasNext = bank + 1 < tokenTiles
        if hasNext {
            try fetchTopK(bank + 1, core)
            if isQuantized, isPrequantizedPerTile { try await prequant(bank + 1, core, state) }
        }
        if bank == 0 {
            try await metadata(0, core, state)
            try scatter(0, core, state)
        }
        if hasNext {
            try await metadata(bank + 1, core, state)
            try scatter(bank + 1, core, state)
        }
        // P5: the list of local experts that got rows; without it every expert is visited to look.
        let active = state.counts[bank].activeExperts(device: core.device)
        core.spend(costs.loop * Picoseconds(local), .scalar)
        if options.computesShared(problem.shape) { try await sharedExpert(bank, core, state) }
        for position in active.indices {
            try await ffn(position, of: active, bank, core, state)
            try gather(active[position], bank, core, state)
        }
        if !options.usesActiveList { core.spend(visitTime * Picoseconds(local - active.count), .scalar) }
    }

    /// Looking at an expert without rows: its count, and a gather loop that finds nothing.
    private var visitTime: Picoseconds { costs.loop * Picoseconds(1 + problem.devices) }

    /// Q1 to Q6.
    private func resultPass(_ bank: Int, _ core: Core, _ state: FusedMoEV2State) async throws(DeviceError) {
        core.enter(layout.phases.waitForResults)
        for expert in 0..<local {
            core.spend(costs.loop, .scalar)
            try await core.wait(
                layout.scatterSent[bank * local + expert],
                bytes: state.rowsSent[bank * local + expert] * layout.landing.rowBytes)
        }
        core.spend(costs.loop * Picoseconds(problem.shape.experts), .scalar)
        if !options.ablations.contains(.gather), !options.ablations.contains(.scatter) {
            try await core.wait(
                layout.gatherReceived[bank],
                bytes: state.counts[bank].rowsSent(source: core.device) * layout.returned.rowBytes)
        }
        try await combine(bank, core, state)
        core.enter(layout.phases.barrier)
        try await core.barrier()
        core.enter(layout.phases.store)
        try core.copy(
            layout.outputTile.rows(bank % banks * tile.bt, tile.bt), to: layout.output.rows(bank * tile.bt, tile.bt),
            signalling: layout.outputStored)
        for expert in 0..<local {
            core.spend(costs.loop, .scalar)
            try await core.wait(
                layout.gatherSent[bank * local + expert],
                bytes: state.resultsSent[bank * local + expert] * layout.results.rowBytes)
        }
    }

    /// METADATA(b): the mailbox has two banks, used alternately.
    private func metadata(_ bank: Int, _ core: Core, _ state: FusedMoEV2State) async throws(DeviceError) {
        core.enter(layout.phases.metadata)
        try await core.wait(layout.routingLoaded[bank % banks], bytes: layout.routing.rowBytes)
        let step = MetadataExchangeStep(
            mailbox: layout.mailbox, firstRow: (bank & 1) * problem.devices, sent: layout.metadataSent,
            received: layout.metadataReceived[bank & 1], problem: problem, routing: routing, tile: tile, costs: costs)
        state.counts[bank] = try await step.run(tileTokens(bank, core.device), options.metadata, core)
    }

    /// COMBINE(b).
    private func combine(_ bank: Int, _ core: Core, _ state: FusedMoEV2State) async throws(DeviceError) {
        core.enter(layout.phases.combine)
        let output = bank % banks * tile.bt
        let step = CombineStep(
            returned: layout.returned, firstReturned: bank * problem.shape.experts * tile.bt,
            gatherTile: layout.gatherTile, loaded: layout.combineLoaded, output: layout.outputTile,
            firstOutput: output, problem: problem, routing: routing, tile: tile, costs: costs, arithmetic: arithmetic)
        let shared =
            options.computesShared(problem.shape) ? UnsafePointer(state.shared.pointer + output * hidden) : nil
        try await step.run(
            tokens: tileTokens(bank, core.device), first: bank * tile.bt, shared: shared,
            scratch: state.scratch.pointer, core)
    }

    /// The tile's rows that are not padding, as rows of the device.
    private func tileTokens(_ bank: Int, _ device: Int) -> Range<Int> {
        let end = min((bank + 1) * tile.bt, problem.tokenCount(device: device))
        return bank * tile.bt..<max(bank * tile.bt, end)
    }

    private func extendScatterStage(from start: Picoseconds, to end: Picoseconds) {
        let known = scatterStage ?? start..<end
        scatterStage = min(known.lowerBound, start)..<max(known.upperBound, end)
    }

    private var isQuantized: Bool { problem.quantization.tokens.isQuantized }

    /// Rows as they are sent: quantised ones, or the tokens themselves.
    private var sentRows: Buffer { layout.quantized ?? layout.inputs.tokens }

    /// Ids and weights of an outer tile: two copies.
    private func fetchTopK(_ bank: Int, _ core: Core) throws(DeviceError) {
        try core.copy(
            layout.inputs.routing.rows(bank, 1), to: layout.routing.rows(bank % banks, 1),
            signalling: layout.routingLoaded[bank % banks], pieces: 2)
    }
}

// MARK: K1: prequant

extension FusedMoEV2 {
    /// Prequant(b): rows of one outer tile, bf16 in, e4m3 with their scale out; nothing else happens meanwhile.
    private func prequant(_ bank: Int, _ core: Core, _ state: FusedMoEV2State) async throws(DeviceError) {
        guard let target = layout.quantized else { return }
        core.enter(layout.phases.prequantize)
        let rows = tile.bt
        try core.copy(
            layout.inputs.tokens.rows(bank * tile.bt, rows), to: layout.stage.rows(0, rows),
            signalling: layout.rowsStaged)
        try await core.wait(layout.rowsStaged, bytes: rows * layout.inputs.tokens.rowBytes)
        try quantizeStaged(first: 0, rows, core, state)
        try core.copy(
            layout.rowTile.rows(0, rows), to: target.rows(bank * tile.bt, rows), signalling: layout.rowsStored)
        try await core.wait(layout.rowsStored, bytes: rows * target.rowBytes)
    }

    /// All rows of the device up front, in chunks: one loads while the one before it is stored.
    private func prequantAll(_ core: Core, _ state: FusedMoEV2State) async throws(DeviceError) {
        guard let target = layout.quantized else { return }
        core.enter(layout.phases.prequantize)
        let total = layout.inputs.tokens.rowCount
        let chunk = TileConfiguration.greatestCommonDivisor(total, min(32, max(1, tile.bts / 2)))
        let count = total / chunk
        let loaded = chunk * layout.inputs.tokens.rowBytes
        func load(_ index: Int) throws(DeviceError) {
            try core.copy(
                layout.inputs.tokens.rows(index * chunk, chunk), to: layout.stage.rows(index % 2 * chunk, chunk),
                signalling: layout.rowsStaged)
        }
        try load(0)
        for index in 0..<count {
            try await core.wait(layout.rowsStaged, bytes: loaded)
            if index > 0 { try await core.wait(layout.rowsStored, bytes: chunk * target.rowBytes) }
            if index + 1 < count { try load(index + 1) }
            try quantizeStaged(first: index % 2 * chunk, chunk, core, state)
            try core.copy(
                layout.rowTile.rows(index % 2 * chunk, chunk), to: target.rows(index * chunk, chunk),
                signalling: layout.rowsStored)
        }
        try await core.wait(layout.rowsStored, bytes: chunk * target.rowBytes)
    }

    /// Rows of the stage into the same rows of the x tile.
    private func quantizeStaged(
        first: Int, _ rows: Int, _ core: Core, _ state: FusedMoEV2State
    ) throws(DeviceError) {
        core.spend(costs.quantize(rows: rows, hidden: hidden), .vector)
        let source = try core.read(layout.stage.rows(first, rows))
        let target = try core.write(layout.rowTile.rows(first, rows))
        guard let arithmetic, let source, let target else { return }
        let plain = RowCodec(format: .bfloat16, hidden: hidden)
        for row in 0..<rows {
            _ = plain.decode(source + row * layout.stage.rowBytes, into: state.scratch.pointer)
            arithmetic.codec.encode(state.scratch.pointer, into: target + row * layout.rowTile.rowBytes)
        }
    }
}

// MARK: P3 scatter, P7 gather

extension FusedMoEV2 {
    /// SCATTER(b), into the outer tile's bank of landing zones. Issue only.
    private func scatter(_ bank: Int, _ core: Core, _ state: FusedMoEV2State) throws(DeviceError) {
        core.enter(layout.phases.scatter)
        guard !options.ablations.contains(.scatter) else { return }
        extendScatterStage(from: core.now, to: core.now)
        let step = ScatterStep(
            rows: sentRows, landing: layout.landing, landingRows: layout.landingRows, firstSlot: bank * local,
            sent: layout.scatterSent, received: layout.scatterReceived, problem: problem, routing: routing,
            costs: costs)
        try step.run(
            tileTokens(bank, core.device), of: tile.bt, state.counts[bank], rowsSent: &state.rowsSent, core)
    }

    /// GATHER(b, i): the results of a local expert back to their sources.
    private func gather(_ expert: Int, _ bank: Int, _ core: Core, _ state: FusedMoEV2State) throws(DeviceError) {
        core.enter(layout.phases.gather)
        guard !options.ablations.contains(.gather), !options.ablations.contains(.scatter) else { return }
        let id = core.device * local + expert
        let slot = bank * local + expert
        let step = GatherStep(
            results: layout.results, firstResult: slot * layout.landingRows, returned: layout.returned,
            firstReturned: (bank * problem.shape.experts + id) * tile.bt, sent: layout.gatherSent[slot],
            received: layout.gatherReceived[bank], costs: costs)
        state.resultsSent[slot] += try step.run(state.counts[bank], expert: id, core)
    }
}

// MARK: P6: shared expert

extension FusedMoEV2 {
    /// SHARED(b): the shared expert on the device's own rows, while the scatter flies. It uses the x tile and the weight
    /// slots of the routed experts; every block's weights are fetched again for every outer tile.
    private func sharedExpert(_ bank: Int, _ core: Core, _ state: FusedMoEV2State) async throws(DeviceError) {
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

// MARK: P7: FFN

extension FusedMoEV2 {
    private var widthTiles: Int { problem.shape.intermediate / tile.bf }

    /// FFN(b, i): waits for the expert's rows and computes them, `bts` at a time, whatever part of them is real.
    private func ffn(
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
    private func startWeights(
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

// MARK: State

/// What one device's program remembers: its scalar memory, and fp32 views of the tiles it computes on.
final class FusedMoEV2State {
    /// What the mailbox brought, per bank.
    var counts: [RoutingCounts]
    /// Remote rows that this device sent to every (bank, local expert slot of their owners).
    var rowsSent: [Int]
    /// Remote result rows that this device sent for every (bank, local expert).
    var resultsSent: [Int]
    /// The expert whose first weight tile is on its way into slot 0 (or its own slot when there is only one tile).
    var prefetched: Int?

    // fp32 views, only with tensors
    let rows: FloatScratch
    let rowScales: FloatScratch
    let shared: FloatScratch
    let scratch: FloatScratch
    let block: FloatScratch
    let blockScales: FloatScratch

    init(_ kernel: FusedMoEV2) {
        counts = Array(repeating: RoutingCounts(kernel.problem), count: kernel.banks)
        rowsSent = Array(repeating: 0, count: kernel.banks * kernel.local)
        resultsSent = rowsSent
        let (tile, hidden) = (kernel.tile, kernel.hidden)
        let computes = kernel.arithmetic != nil
        let computesShared = computes && kernel.options.computesShared(kernel.problem.shape)
        rows = FloatScratch(computes ? max(tile.bts, tile.bt) * hidden : 0)
        rowScales = FloatScratch(computes ? max(tile.bts, tile.bt) : 0)
        shared = FloatScratch(computesShared ? kernel.banks * tile.bt * hidden : 0)
        scratch = FloatScratch(computes ? 2 * hidden : 0)
        block = FloatScratch(computesShared ? hidden * tile.bse : 0)
        blockScales = FloatScratch(computesShared ? hidden * ((tile.bse + 127) / 128) : 0)
    }
}
