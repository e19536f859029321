import TPU

/// Buffers and semaphores of kernel V1 (docs/kernels.md#buffers): the same on every device.
struct FusedMoEV1Layout {
    let inputs: KernelInputs

    // HBM
    /// Rows that arrived for a local expert: [expert, bt·N rounded up to bts].
    let landing: Buffer
    /// Results of a local expert; partial sums pass through it.
    let results: Buffer
    /// Results that came back: [expert of all, bt].
    let returned: Buffer
    /// The kernel's output.
    let output: Buffer
    /// Rows of one expert's landing zone.
    let landingRows: Int

    // VMEM
    let routing, mailbox: Buffer
    let gatherTile, outputTile: Buffer
    let gateWeights, upWeights, downWeights: WeightSlots
    let gate, up: Buffer
    let tokenStage, resultStage: Buffer
    let shared: SharedBuffers?

    // Semaphores
    let routingLoaded: SemaphoreArray
    let metadataSent, metadataReceived: Semaphore
    let tokensStaged, partialsLoaded, partialsStored: SemaphoreArray
    let scatterSent, scatterReceived, gatherSent: SemaphoreArray
    let gatherReceived: Semaphore
    let combineLoaded, outputStored: SemaphoreArray
    let phases: KernelPhases

    /// The shared expert's rows, weights and fp32 sums.
    struct SharedBuffers {
        let rows, sum: Buffer
        let gate, up, down: WeightSlots
        let rowsLoaded: SemaphoreArray

        init(
            _ slice: Slice, _ problem: MoEProblem, _ tile: TileConfiguration, _ options: KernelOptions,
            _ valueBytes: Int
        ) throws(DeviceError) {
            rows = try slice.buffer(
                "shared expert's rows", in: .vector, rows: 2 * tile.bt, rowBytes: valueBytes * tile.bd1,
                granuleRows: tile.bt)
            sum = try slice.buffer(
                "shared expert's sum", in: .vector, rows: tile.bt, rowBytes: 4 * problem.shape.hidden)
            gate = try WeightSlots(
                slice, "shared W1", rows: tile.bse, columns: tile.bd1, parts: 2, problem: problem, options: options)
            up = try WeightSlots(
                slice, "shared W3", rows: tile.bse, columns: tile.bd1, parts: 2, problem: problem, options: options)
            down = try WeightSlots(
                slice, "shared W2", rows: tile.bd2, columns: tile.bse, problem: problem, options: options)
            rowsLoaded = slice.semaphores("shared expert's rows loaded", count: 2)
        }
    }

    init(
        _ slice: Slice, problem: MoEProblem, tile: TileConfiguration, options: KernelOptions
    ) throws(DeviceError) {
        let shape = problem.shape
        let tokens = problem.quantization.tokens
        let rowBytes = tokens.rowBytes(hidden: shape.hidden)
        let value = rowBytes / shape.hidden
        let rows = problem.rowsPerDevice(.v1)
        let local = problem.expertsPerDevice
        landingRows = (tile.bt * problem.devices + tile.bts - 1) / tile.bts * tile.bts
        inputs = try KernelInputs(slice, problem: problem, kernel: .v1, tile: tile, options: options)
        landing = try slice.buffer(
            "scatter landing", in: .highBandwidth, rows: local * landingRows, rowBytes: rowBytes)
        results = try slice.buffer(
            "expert results", in: .highBandwidth, rows: local * landingRows, rowBytes: rowBytes,
            granuleBytes: value * tile.bd2)
        returned = try slice.buffer(
            "gather landing", in: .highBandwidth, rows: shape.experts * tile.bt, rowBytes: rowBytes)
        output = try slice.buffer("output", in: .highBandwidth, rows: rows, rowBytes: rowBytes)

        let group = TileConfiguration.greatestCommonDivisor(tile.bt, 16)
        gatherTile = try slice.buffer("gather tile", in: .vector, rows: 2 * shape.topK * group, rowBytes: rowBytes)
        routing = try slice.buffer("routing", in: .vector, rows: 2, rowBytes: tile.bt * 128 * 8)
        outputTile = try slice.buffer("output tile", in: .vector, rows: 2 * tile.bt, rowBytes: rowBytes)
        // Both planes of a slice of W1 or W3 arrive as copies of their own.
        gateWeights = try WeightSlots(
            slice, "W1", rows: tile.bf, columns: tile.bd1, parts: 2, problem: problem, options: options)
        upWeights = try WeightSlots(
            slice, "W3", rows: tile.bf, columns: tile.bd1, parts: 2, problem: problem, options: options)
        downWeights = try WeightSlots(
            slice, "W2", rows: tile.bd2, columns: tile.bf, problem: problem, options: options)
        gate = try slice.buffer("gate", in: .vector, rows: landingRows, rowBytes: 4 * tile.bf)
        up = try slice.buffer("up", in: .vector, rows: landingRows, rowBytes: 4 * tile.bf)
        tokenStage = try slice.buffer(
            "token stage", in: .vector, rows: 2 * tile.bts, rowBytes: value * tile.bd1, granuleRows: tile.bts,
            granuleBytes: value * tile.bd1 / 2)
        resultStage = try slice.buffer(
            "result stage", in: .vector, rows: 3 * tile.bts, rowBytes: value * tile.bd2, granuleRows: tile.bts)
        mailbox = try slice.buffer(
            "metadata mailbox", in: .vector, rows: problem.devices, rowBytes: (shape.experts + 127) / 128 * 512,
            content: .metadata)
        let words = tile.bt * 128 + problem.devices * shape.experts + 4 * shape.experts + 2 * local + 1
        _ = try slice.buffer("routing metadata", in: .scalar, rows: 2, rowBytes: 4 * words)

        shared = options.computesShared(shape) ? try SharedBuffers(slice, problem, tile, options, value) : nil

        routingLoaded = slice.semaphores("routing loaded", count: 2)
        metadataSent = slice.semaphore("metadata sent")
        metadataReceived = slice.semaphore("metadata received")
        tokensStaged = slice.semaphores("tokens staged", count: 2)
        partialsLoaded = slice.semaphores("partial sums loaded", count: 3)
        partialsStored = slice.semaphores("partial sums stored", count: 3)
        scatterSent = slice.semaphores("scatter sent", count: local)
        scatterReceived = slice.semaphores("scatter received", count: local)
        gatherSent = slice.semaphores("gather sent", count: local)
        gatherReceived = slice.semaphore("gather received")
        combineLoaded = slice.semaphores("combine loaded", count: 2)
        outputStored = slice.semaphores("output stored", count: 2)
        phases = KernelPhases(slice)
    }
}
