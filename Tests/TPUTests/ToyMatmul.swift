import TPU

/// C = A · Bᵀ in fp32 on one device: A stays in VMEM, B streams through two slots, results leave while the next tile is
/// computed. The first example of a kernel.
struct ToyMatmul: Sendable {
    let rows: Int, columns: Int, depth: Int, tile: Int
    let a, b, c, aTile, bSlots, cSlots: Buffer
    let aLoaded: Semaphore
    let bLoaded, cStored: SemaphoreArray

    init(_ slice: Slice, rows: Int, columns: Int, depth: Int, tile: Int) throws(DeviceError) {
        (self.rows, self.columns, self.depth, self.tile) = (rows, columns, depth, tile)
        a = try slice.buffer("A", in: .highBandwidth, rows: rows, rowBytes: 4 * depth, content: .constant)
        b = try slice.buffer("B", in: .highBandwidth, rows: columns, rowBytes: 4 * depth, content: .constant)
        c = try slice.buffer("C", in: .highBandwidth, rows: columns, rowBytes: 4 * rows)
        aTile = try slice.buffer("A tile", in: .vector, rows: rows, rowBytes: 4 * depth, granuleRows: rows)
        bSlots = try slice.buffer("B slots", in: .vector, rows: 2 * tile, rowBytes: 4 * depth, granuleRows: tile)
        cSlots = try slice.buffer("C slots", in: .vector, rows: 2 * tile, rowBytes: 4 * rows, granuleRows: tile)
        aLoaded = slice.semaphore("A loaded")
        bLoaded = slice.semaphores("B loaded", count: 2)
        cStored = slice.semaphores("C stored", count: 2)
    }

    func run(_ core: Core) async throws(DeviceError) {
        let tiles = columns / tile
        try core.copy(a.rows(0, rows), to: aTile.rows(0, rows), signalling: aLoaded)
        try load(0, core)
        try await core.wait(aLoaded, bytes: rows * aTile.rowBytes)
        for index in 0..<tiles {
            let slot = index % 2
            if index + 1 < tiles { try load(index + 1, core) }  // into the other slot, while this one is computed
            try await core.wait(bLoaded[slot], bytes: tile * bSlots.rowBytes)
            if index >= 2 { try await core.wait(cStored[slot], bytes: tile * cSlots.rowBytes) }
            try multiply(slot, core)
            try core.copy(
                cSlots.rows(slot * tile, tile), to: c.rows(index * tile, tile), signalling: cStored[slot])
        }
        for index in max(0, tiles - 2)..<tiles {
            try await core.wait(cStored[index % 2], bytes: tile * cSlots.rowBytes)
        }
    }

    private func load(_ index: Int, _ core: Core) throws(DeviceError) {
        let slot = index % 2
        try core.copy(b.rows(index * tile, tile), to: bSlots.rows(slot * tile, tile), signalling: bLoaded[slot])
    }

    private func multiply(_ slot: Int, _ core: Core) throws(DeviceError) {
        core.spend(Picoseconds(rows * tile * depth / 64), .matrix)
        let x = try core.read(aTile.rows(0, rows))?.assumingMemoryBound(to: Float.self)
        let w = try core.read(bSlots.rows(slot * tile, tile))?.assumingMemoryBound(to: Float.self)
        let y = try core.write(cSlots.rows(slot * tile, tile))?.assumingMemoryBound(to: Float.self)
        guard let x, let w, let y else { return }  // only shapes: nothing to compute
        for column in 0..<tile {
            for row in 0..<rows {
                y[column * rows + row] = (0..<depth).reduce(0) { $0 + x[row * depth + $1] * w[column * depth + $1] }
            }
        }
    }
}
