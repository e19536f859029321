import TPU

extension FusedMoEV2 {
    /// Prequant(b): rows of one outer tile, bf16 in, e4m3 with their scale out; nothing else happens meanwhile.
    func prequant(_ bank: Int, _ core: Core, _ state: FusedMoEV2State) async throws(DeviceError) {
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
    func prequantAll(_ core: Core, _ state: FusedMoEV2State) async throws(DeviceError) {
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
