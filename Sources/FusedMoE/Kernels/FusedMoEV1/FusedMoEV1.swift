import Numerics
import TPU

/// Kernel V1: hidden slices, an expert's whole intermediate in VMEM, partial sums through HBM, and one outer tile after
/// the other (docs/kernels.md#v1).
// One value is used by the programs of all devices; they run on one thread.
final class FusedMoEV1 {
    let problem: MoEProblem
    let tile: TileConfiguration
    let options: KernelOptions
    let routing: RoutingTable
    let layout: FusedMoEV1Layout
    let costs: CostModel
    /// Nil when tensors are only shapes.
    let arithmetic: TileArithmetic?
    let tokenTiles: Int
    let local: Int
    let hidden: Int
    /// Core time in the first products: sum over devices.
    var firstProductTime: Picoseconds = 0

    init(
        _ slice: Slice, problem: MoEProblem, tile: TileConfiguration, options: KernelOptions, routing: RoutingTable,
        computes: Bool
    ) throws(DeviceError) {
        self.problem = problem
        self.tile = tile
        self.options = options
        self.routing = routing
        layout = try FusedMoEV1Layout(slice, problem: problem, tile: tile, options: options)
        costs = CostModel(slice.parameters, problem: problem, kernel: .v1, options: options)
        arithmetic =
            computes
            ? TileArithmetic(
                problem: problem, kernel: .v1, tile: tile, rows: max(tile.bts, tile.bt),
                computesShared: options.computesShared(problem.shape)) : nil
        tokenTiles = tile.tokenTiles(problem, kernel: .v1)
        local = problem.expertsPerDevice
        hidden = problem.shape.hidden
    }

    /// The program of one device.
    func run(_ core: Core) async throws(DeviceError) {
        let state = FusedMoEV1State(self)
        try fetchTopK(0, core)
        core.enter(layout.phases.barrier)
        try await core.barrier()
        for index in 0..<tokenTiles {
            if index + 1 < tokenTiles { try fetchTopK(index + 1, core) }
            try await metadata(index, core, state)
            if index >= 2 {
                core.enter(layout.phases.store)
                try await core.wait(layout.outputStored[index & 1], bytes: tile.bt * layout.output.rowBytes)
            }
            try scatter(index, core, state)
            try await expertPass(index, core, state)
            try await resultPass(index, core, state)
            if index + 1 < tokenTiles {
                core.enter(layout.phases.barrier)
                try await core.barrier()
            }
        }
        core.enter(layout.phases.store)
        for index in max(0, tokenTiles - 2)..<tokenTiles {
            try await core.wait(layout.outputStored[index & 1], bytes: tile.bt * layout.output.rowBytes)
        }
    }

    private func fetchTopK(_ index: Int, _ core: Core) throws(DeviceError) {
        try core.copy(
            layout.inputs.routing.rows(index, 1), to: layout.routing.rows(index & 1, 1),
            signalling: layout.routingLoaded[index & 1], pieces: 2)
    }

    /// All local experts in order, with slices of the shared expert before and after each.
    private func expertPass(_ index: Int, _ core: Core, _ state: FusedMoEV1State) async throws(DeviceError) {
        let blocks = options.computesShared(problem.shape) ? problem.shape.sharedIntermediate / tile.bse : 0
        let perExpert = max(2, (blocks + local - 1) / local)
        let active = state.counts.activeExperts(device: core.device)
        if let first = active.first, !options.ablations.contains(.ffn) { try startFirstSlice(first, 0, 0, core, state) }
        var block = 0
        for expert in 0..<local {
            for _ in 0..<perExpert / 2 where block < blocks {
                try await sharedExpert(block, index, core, state)
                block += 1
            }
            let rows = state.counts.size(expert: core.device * local + expert)
            if rows > 0 {
                let next = active.first { $0 > expert }
                try await ffn(expert, rows, next: next, core, state)
                try gather(expert, core, state)
            }
            for _ in perExpert / 2..<perExpert where block < blocks {
                try await sharedExpert(block, index, core, state)
                block += 1
            }
        }
        while block < blocks {
            try await sharedExpert(block, index, core, state)
            block += 1
        }
    }

    private func resultPass(_ index: Int, _ core: Core, _ state: FusedMoEV1State) async throws(DeviceError) {
        core.enter(layout.phases.waitForResults)
        for expert in 0..<local {
            core.spend(costs.loop, .scalar)
            try await core.wait(
                layout.scatterSent[expert], bytes: state.rowsSent[expert] * layout.landing.rowBytes)
        }
        core.spend(costs.loop * Picoseconds(problem.shape.experts), .scalar)
        if !options.ablations.contains(.gather), !options.ablations.contains(.scatter) {
            try await core.wait(
                layout.gatherReceived, bytes: state.counts.rowsSent(source: core.device) * layout.returned.rowBytes)
        }
        core.enter(layout.phases.barrier)
        try await core.barrier()
        try await combine(index, core, state)
        core.enter(layout.phases.store)
        try core.copy(
            layout.outputTile.rows((index & 1) * tile.bt, tile.bt), to: layout.output.rows(index * tile.bt, tile.bt),
            signalling: layout.outputStored[index & 1])
        for expert in 0..<local {
            core.spend(costs.loop, .scalar)
            try await core.wait(
                layout.gatherSent[expert], bytes: state.resultsSent[expert] * layout.results.rowBytes)
        }
    }

    /// The tile's rows that are not padding, as rows of the device.
    private func tileTokens(_ index: Int, _ device: Int) -> Range<Int> {
        let end = min((index + 1) * tile.bt, problem.tokenCount(device: device))
        return index * tile.bt..<max(index * tile.bt, end)
    }
}

// MARK: Metadata, scatter, gather, combine

extension FusedMoEV1 {
    /// METADATA(b), as in V2; the mailbox has one bank because outer tiles do not overlap.
    private func metadata(_ index: Int, _ core: Core, _ state: FusedMoEV1State) async throws(DeviceError) {
        core.enter(layout.phases.metadata)
        try await core.wait(layout.routingLoaded[index & 1], bytes: layout.routing.rowBytes)
        state.rowsSent = Array(repeating: 0, count: local)
        state.resultsSent = state.rowsSent
        let step = MetadataExchangeStep(
            mailbox: layout.mailbox, firstRow: 0, sent: layout.metadataSent, received: layout.metadataReceived,
            problem: problem, routing: routing, tile: tile, costs: costs)
        state.counts = try await step.run(tileTokens(index, core.device), options.metadata, core)
    }

    /// SCATTER(b): bf16 rows. Issue only.
    private func scatter(_ index: Int, _ core: Core, _ state: FusedMoEV1State) throws(DeviceError) {
        core.enter(layout.phases.scatter)
        guard !options.ablations.contains(.scatter) else { return }
        let step = ScatterStep(
            rows: layout.inputs.tokens, landing: layout.landing, landingRows: layout.landingRows, firstSlot: 0,
            sent: layout.scatterSent, received: layout.scatterReceived, problem: problem, routing: routing,
            costs: costs)
        try step.run(
            tileTokens(index, core.device), of: tile.bt, state.counts, rowsSent: &state.rowsSent, core)
    }

    /// GATHER(b, i): the results of a local expert back to their sources.
    private func gather(_ expert: Int, _ core: Core, _ state: FusedMoEV1State) throws(DeviceError) {
        core.enter(layout.phases.gather)
        guard !options.ablations.contains(.gather), !options.ablations.contains(.scatter) else { return }
        let id = core.device * local + expert
        let step = GatherStep(
            results: layout.results, firstResult: expert * layout.landingRows, returned: layout.returned,
            firstReturned: id * tile.bt, sent: layout.gatherSent[expert], received: layout.gatherReceived,
            costs: costs)
        state.resultsSent[expert] += try step.run(state.counts, expert: id, core)
    }

    /// COMBINE(b), as in V2, with the shared expert's fp32 sums.
    private func combine(_ index: Int, _ core: Core, _ state: FusedMoEV1State) async throws(DeviceError) {
        core.enter(layout.phases.combine)
        let step = CombineStep(
            returned: layout.returned, firstReturned: 0, gatherTile: layout.gatherTile, loaded: layout.combineLoaded,
            output: layout.outputTile, firstOutput: (index & 1) * tile.bt, problem: problem, routing: routing,
            tile: tile, costs: costs, arithmetic: arithmetic)
        let shared = options.computesShared(problem.shape) ? UnsafePointer(state.shared.pointer) : nil
        try await step.run(
            tokens: tileTokens(index, core.device), first: index * tile.bt, shared: shared,
            scratch: state.scratch.pointer, core)
    }
}

// MARK: Shared expert

extension FusedMoEV1 {
    /// One block of the shared expert's width: rows and weights stream in slices of H, two at a time.
    private func sharedExpert(
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

// MARK: FFN

extension FusedMoEV1 {
    private var widthTiles: Int { problem.shape.intermediate / tile.bf }
    private var firstCount: Int { hidden / tile.bd1 }
    private var secondCount: Int { hidden / tile.bd2 }

    /// FFN(e): for every tile of the intermediate width, all slices of H into gate and up of all rows, then all slices
    /// of H out of them.
    private func ffn(
        _ expert: Int, _ rows: Int, next: Int?, _ core: Core, _ state: FusedMoEV1State
    ) async throws(DeviceError) {
        core.enter(layout.phases.waitForRows)
        if !options.ablations.contains(.scatter) {
            try await core.wait(layout.scatterReceived[expert], bytes: rows * layout.landing.rowBytes)
        }
        core.enter(layout.phases.experts)
        guard !options.ablations.contains(.ffn) else { return }
        for index in 0..<widthTiles {
            let work = WidthTile(expert: expert, index: index, rows: rows, next: next)
            if index == 0 { try stageTokens(work, 0, 0, core, state) }
            for slice in 0..<firstCount { try await ffn1Slice(work, slice, core, state) }
            try await ffn2(work, core, state)
        }
    }

    /// One tile of an expert's intermediate width.
    private struct WidthTile {
        let expert: Int
        let index: Int
        let rows: Int
        let next: Int?
    }

    private func tokenTileCount(_ rows: Int) -> Int { (rows + tile.bts - 1) / tile.bts }

    private func firstRow(_ work: WidthTile, _ token: Int) -> Int {
        work.expert * layout.landingRows + token * tile.bts
    }

    /// One slice of H of the first products, for all rows: the next slice's weights and the next rows load meanwhile.
    private func ffn1Slice(
        _ work: WidthTile, _ slice: Int, _ core: Core, _ state: FusedMoEV1State
    ) async throws(DeviceError) {
        if slice + 1 < firstCount {
            try startFirstSlice(work.expert, work.index, slice + 1, core, state, slot: (state.firstSlices + 1) & 1)
        } else {
            try startSecondSlice(work.expert, work.index, 0, core, state.secondSlices & 1)
        }
        let slot = state.firstSlices & 1
        state.firstSlices += 1
        let count = tokenTileCount(work.rows)
        try await layout.gateWeights.wait(slot, core)
        try await layout.upWeights.wait(slot, core)
        for token in 0..<count {
            let stage = state.stagedTokens & 1
            state.stagedTokens += 1
            if token + 1 < count {
                try stageTokens(work, token + 1, slice, core, state)
            } else if slice + 1 < firstCount {
                try stageTokens(work, 0, slice + 1, core, state)
            } else if work.index + 1 < widthTiles {
                try stageTokens(work, 0, 0, core, state)
            }
            try await core.wait(layout.tokensStaged[stage], bytes: tile.bts * layout.tokenStage.rowBytes)
            let rows = min(tile.bts, work.rows - token * tile.bts)
            spendOnFirst(rows, core)
            try firstProducts(slot, stage, token, rows, adds: slice > 0, core, state)
        }
    }

    /// A slice of H is the same part of both planes of a row: two copies.
    private func stageTokens(
        _ work: WidthTile, _ token: Int, _ slice: Int, _ core: Core, _ state: FusedMoEV1State
    ) throws(DeviceError) {
        let slot = state.stagedTokens & 1
        let bytes = layout.tokenStage.rowBytes / 2
        for plane in 0..<2 {
            let first = plane * layout.landing.rowBytes / 2 + slice * bytes
            try core.copy(
                layout.landing.rows(firstRow(work, token), tile.bts, bytes: first..<first + bytes),
                to: layout.tokenStage.rows(slot * tile.bts, tile.bts, bytes: plane * bytes..<(plane + 1) * bytes),
                signalling: layout.tokensStaged[slot])
        }
    }

    /// Only chunks with real rows are computed.
    private func spendOnFirst(_ rows: Int, _ core: Core) {
        guard !options.ablations.contains(.matmul) else { return }
        let chunks = Picoseconds((rows + tile.btc - 1) / tile.btc)
        let time =
            (2 * costs.firstProduct(rows: tile.btc, inputs: tile.bd1, outputs: tile.bf) + call(tile.bd1)) * chunks
        core.spend(time, .matrix)
        firstProductTime += time
    }

    /// The fixed cost of a call is that of whole rows: a slice of them bears its share.
    private func call(_ slice: Int) -> Picoseconds { costs.call * Picoseconds(slice) / Picoseconds(hidden) }

    private func firstProducts(
        _ slot: Int, _ stage: Int, _ token: Int, _ rows: Int, adds: Bool, _ core: Core, _ state: FusedMoEV1State
    ) throws(DeviceError) {
        let w1 = try layout.gateWeights.matrix(slot, core)
        let w3 = try layout.upWeights.matrix(slot, core)
        let bytes = try core.read(layout.tokenStage.rows(stage * tile.bts, tile.bts))
        let gate = try core.write(layout.gate.rows(token * tile.bts, tile.bts))
        let up = try core.write(layout.up.rows(token * tile.bts, tile.bts))
        guard let arithmetic, let w1, let w3, let bytes, let gate, let up else { return }
        let codec = RowCodec(format: problem.quantization.tokens, hidden: tile.bd1)
        for row in 0..<rows {
            _ = codec.decode(bytes + row * layout.tokenStage.rowBytes, into: state.rows.pointer + row * hidden)
        }
        for columns in [0..<tile.bd1 / 2, tile.bd1 / 2..<tile.bd1] {
            arithmetic.firstProducts(
                state.rows.pointer, rowScales: state.rowScales.pointer, rows: rows, gate: w1, up: w3,
                columns: columns, adds: adds || columns.lowerBound > 0, gate: gate.assumingMemoryBound(to: Float.self),
                up: up.assumingMemoryBound(to: Float.self), stride: tile.bf)
        }
    }

    /// All slices of H of the second product: a ring of three stages loads the partial sums of the next step and stores
    /// those of the last one while this one is computed.
    private func ffn2(_ work: WidthTile, _ core: Core, _ state: FusedMoEV1State) async throws(DeviceError) {
        let count = tokenTileCount(work.rows)
        let steps = secondCount * count
        let stepBytes = tile.bts * layout.resultStage.rowBytes
        if work.index > 0 { try loadPartial(work, 0, count, core) }
        for step in 0..<steps {
            let (slice, token, ring) = (step / count, step % count, step % 3)
            if token == 0 { try startAfterSecond(work, slice, core, state) }
            let slot = (state.secondSlices + slice) & 1
            if token == 0 { try await layout.downWeights.wait(slot, core) }
            if step >= 2 { try await core.wait(layout.partialsStored[(step + 1) % 3], bytes: stepBytes) }
            if work.index > 0 {
                try await core.wait(layout.partialsLoaded[ring], bytes: stepBytes)
                if step + 1 < steps { try loadPartial(work, step + 1, count, core) }
            }
            let rows = min(tile.bts, work.rows - token * tile.bts)
            let chunks = Picoseconds((rows + tile.btc - 1) / tile.btc)
            core.spend(
                (costs.secondProduct(rows: tile.btc, inputs: tile.bf, outputs: tile.bd2) + call(tile.bd2)) * chunks,
                .matrix)
            try secondProduct(slot, token, ring, rows, adds: work.index > 0, core, state)
            try core.copy(
                layout.resultStage.rows(ring * tile.bts, tile.bts), to: resultRegion(work, token, slice),
                signalling: layout.partialsStored[ring])
        }
        for step in max(0, steps - 2)..<steps {
            try await core.wait(layout.partialsStored[step % 3], bytes: stepBytes)
        }
        state.secondSlices += secondCount
    }

    /// The slice that follows: of W2, of the next width tile, or of the next expert.
    private func startAfterSecond(
        _ work: WidthTile, _ slice: Int, _ core: Core, _ state: FusedMoEV1State
    ) throws(DeviceError) {
        if slice + 1 < secondCount {
            try startSecondSlice(work.expert, work.index, slice + 1, core, (state.secondSlices + slice + 1) & 1)
        } else if work.index + 1 < widthTiles {
            try startFirstSlice(work.expert, work.index + 1, 0, core, state)
        } else if let next = work.next {
            try startFirstSlice(next, 0, 0, core, state)
        }
    }

    private func resultRegion(_ work: WidthTile, _ token: Int, _ slice: Int) -> Region {
        let bytes = layout.resultStage.rowBytes
        return layout.results.rows(firstRow(work, token), tile.bts, bytes: slice * bytes..<(slice + 1) * bytes)
    }

    private func loadPartial(_ work: WidthTile, _ step: Int, _ count: Int, _ core: Core) throws(DeviceError) {
        let ring = step % 3
        try core.copy(
            resultRegion(work, step % count, step / count), to: layout.resultStage.rows(ring * tile.bts, tile.bts),
            signalling: layout.partialsLoaded[ring])
    }

    private func secondProduct(
        _ slot: Int, _ token: Int, _ ring: Int, _ rows: Int, adds: Bool, _ core: Core, _ state: FusedMoEV1State
    ) throws(DeviceError) {
        let w2 = try layout.downWeights.matrix(slot, core)
        let gate = try core.read(layout.gate.rows(token * tile.bts, tile.bts))
        let up = try core.read(layout.up.rows(token * tile.bts, tile.bts))
        let stage = try core.write(layout.resultStage.rows(ring * tile.bts, tile.bts))
        guard let arithmetic, let w2, let gate, let up, let stage else { return }
        let activated = state.activated.pointer
        activated.update(from: gate.assumingMemoryBound(to: Float.self), count: rows * tile.bf)
        arithmetic.activate(
            gate: activated, up: up.assumingMemoryBound(to: Float.self), rows: rows, width: tile.bf, stride: tile.bf)
        let sum = state.partial.pointer
        arithmetic.secondProduct(
            activated, rows: rows, stride: tile.bf, down: w2, columns: 0..<tile.bf, adds: false, into: sum)
        let codec = RowCodec(format: problem.quantization.tokens, hidden: tile.bd2)
        for row in 0..<rows {
            let target = stage + row * layout.resultStage.rowBytes
            if adds {
                codec.decodeResult(UnsafeRawPointer(target), into: state.loaded.pointer)
                for column in 0..<tile.bd2 { sum[row * tile.bd2 + column] += state.loaded.pointer[column] }
            }
            codec.encodeResult(sum + row * tile.bd2, into: target)
        }
    }
}

extension FusedMoEV1 {
    /// Starts W1 and W3 of a slice of H, into the slot whose turn it is unless said otherwise.
    private func startFirstSlice(
        _ expert: Int, _ index: Int, _ slice: Int, _ core: Core, _ state: FusedMoEV1State, slot: Int? = nil
    ) throws(DeviceError) {
        let slot = slot ?? state.firstSlices & 1
        let matrices = layout.inputs.experts[expert]
        let rows = index * tile.bf..<(index + 1) * tile.bf
        try startPlanes(matrices.gate, rows: rows, slice, layout.gateWeights, slot, core)
        try startPlanes(matrices.up, rows: rows, slice, layout.upWeights, slot, core)
    }

    /// A slice of the inputs of W1 or W3: the same part of both planes.
    private func startPlanes(
        _ matrix: KernelInputs.MatrixBuffers, rows: Range<Int>, _ slice: Int, _ slots: WeightSlots, _ slot: Int,
        _ core: Core
    ) throws(DeviceError) {
        let half = tile.bd1 / 2
        for plane in 0..<2 {
            let column = plane * hidden / 2 + slice * half
            try slots.load(matrix, rows: rows, columns: column..<column + half, into: slot, at: plane * half, core)
        }
    }

    /// Starts W2 of a slice of H.
    private func startSecondSlice(
        _ expert: Int, _ index: Int, _ slice: Int, _ core: Core, _ slot: Int
    ) throws(DeviceError) {
        try layout.downWeights.load(
            layout.inputs.experts[expert].down, rows: slice * tile.bd2..<(slice + 1) * tile.bd2,
            columns: index * tile.bf..<(index + 1) * tile.bf, into: slot, core)
    }
}

// MARK: State

/// What one device's program remembers, and fp32 views of the tiles it computes on.
final class FusedMoEV1State {
    /// What the mailbox brought for this outer tile.
    var counts: RoutingCounts
    /// Remote rows sent to every local expert slot of their owners.
    var rowsSent: [Int]
    /// Remote result rows sent for every local expert.
    var resultsSent: [Int]
    /// Slices of W1 and W3, and of W2, that were started; their parity is the slot.
    var firstSlices = 0
    var secondSlices = 0
    /// Token tiles that were staged and used; their parity is the next stage.
    var stagedTokens = 0

    let rows, rowScales, activated, partial, loaded, shared, scratch: FloatScratch

    init(_ kernel: FusedMoEV1) {
        counts = RoutingCounts(kernel.problem)
        rowsSent = Array(repeating: 0, count: kernel.local)
        resultsSent = rowsSent
        let (tile, hidden) = (kernel.tile, kernel.hidden)
        let computes = kernel.arithmetic != nil
        rows = FloatScratch(computes ? max(tile.bts, tile.bt) * hidden : 0)
        rowScales = FloatScratch(computes ? max(tile.bts, tile.bt) : 0)
        activated = FloatScratch(computes ? tile.bts * tile.bf : 0)
        partial = FloatScratch(computes ? tile.bts * tile.bd2 : 0)
        loaded = FloatScratch(computes ? tile.bd2 : 0)
        shared = FloatScratch(computes ? tile.bt * hidden : 0)
        scratch = FloatScratch(computes ? 2 * hidden : 0)
    }
}
