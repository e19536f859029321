import Numerics
import TPU

extension FusedMoEV1 {
    private var widthTiles: Int { problem.shape.intermediate / tile.bf }
    private var firstCount: Int { hidden / tile.bd1 }
    private var secondCount: Int { hidden / tile.bd2 }

    /// FFN(e): for every tile of the intermediate width, all slices of H into gate and up of all rows, then all slices
    /// of H out of them.
    func ffn(
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
    func startFirstSlice(
        _ expert: Int, _ index: Int, _ slice: Int, _ core: Core, _ state: FusedMoEV1State, slot: Int? = nil
    ) throws(DeviceError) {
        let slot = slot ?? state.firstSlices & 1
        let matrices = layout.inputs.experts[expert]
        let rows = index * tile.bf..<(index + 1) * tile.bf
        try startPlanes(matrices.gate, rows: rows, slice, layout.gateWeights, slot, core)
        try startPlanes(matrices.up, rows: rows, slice, layout.upWeights, slot, core)
    }

    /// A slice of the inputs of W1 or W3: the same part of both planes.
    func startPlanes(
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
    func startSecondSlice(
        _ expert: Int, _ index: Int, _ slice: Int, _ core: Core, _ slot: Int
    ) throws(DeviceError) {
        try layout.downWeights.load(
            layout.inputs.experts[expert].down, rows: slice * tile.bd2..<(slice + 1) * tile.bd2,
            columns: index * tile.bf..<(index + 1) * tile.bf, into: slot, core)
    }
}
