import TPU

/// Buffers and semaphores of kernel V2 (docs/kernels.md#buffers): the same on every device.
struct FusedMoEV2Layout {
    let inputs: KernelInputs

    // HBM
    /// Quantised rows of the device's tokens; nil when rows are sent as they are.
    let quantized: Buffer?
    /// Rows that arrived for a local expert: [bank, expert, bt·N rounded up to bts].
    let landing: Buffer
    /// Results of a local expert, same places.
    let results: Buffer
    /// Results that came back: [bank, expert of all, bt].
    let returned: Buffer
    /// The kernel's output.
    let output: Buffer
    /// Rows of one expert's landing zone.
    let landingRows: Int

    // VMEM
    let routing, mailbox: Buffer
    let gatherTile, outputTile: Buffer
    let gateWeights, upWeights, downWeights: WeightSlots
    let gate, up, rowTile, rowScales, accumulator, stage: Buffer

    // Semaphores
    let routingLoaded, metadataReceived: SemaphoreArray
    let metadataSent: Semaphore
    let rowsStaged, rowsStored, resultsStored: Semaphore
    let scatterSent, scatterReceived: SemaphoreArray
    let gatherSent, gatherReceived, combineLoaded: SemaphoreArray
    let outputStored: Semaphore
    let phases: KernelPhases

    init(
        _ slice: Slice, problem: MoEProblem, tile: TileConfiguration, options: KernelOptions
    ) throws(DeviceError) {
        let shape = problem.shape
        let tokens = problem.quantization.tokens
        let (rowBytes, resultBytes) = (
            tokens.rowBytes(hidden: shape.hidden), tokens.resultRowBytes(hidden: shape.hidden)
        )
        let rows = problem.rowsPerDevice(.v2)
        let banks = tile.banks(problem, kernel: .v2)
        let local = problem.expertsPerDevice
        let padded = (shape.experts + 127) / 128 * 128
        landingRows = (tile.bt * problem.devices + tile.bts - 1) / tile.bts * tile.bts
        inputs = try KernelInputs(slice, problem: problem, kernel: .v2, tile: tile, options: options)
        quantized =
            tokens.isQuantized
            ? try slice.buffer("quantised tokens", in: .highBandwidth, rows: rows, rowBytes: rowBytes) : nil
        landing = try slice.buffer(
            "scatter landing", in: .highBandwidth, rows: banks * local * landingRows, rowBytes: rowBytes)
        results = try slice.buffer(
            "expert results", in: .highBandwidth, rows: banks * local * landingRows, rowBytes: resultBytes)
        returned = try slice.buffer(
            "gather landing", in: .highBandwidth, rows: banks * shape.experts * tile.bt, rowBytes: resultBytes)
        output = try slice.buffer("output", in: .highBandwidth, rows: rows, rowBytes: resultBytes)

        let group = TileConfiguration.greatestCommonDivisor(tile.bt, 16)
        gatherTile = try slice.buffer(
            "gather tile", in: .vector, rows: 2 * shape.topK * group, rowBytes: resultBytes)
        routing = try slice.buffer("routing", in: .vector, rows: banks, rowBytes: tile.bt * 128 * 8)
        outputTile = try slice.buffer("output tile", in: .vector, rows: banks * tile.bt, rowBytes: resultBytes)
        gateWeights = try WeightSlots(
            slice, "W1", rows: tile.bf, columns: shape.hidden, problem: problem, options: options)
        upWeights = try WeightSlots(
            slice, "W3", rows: tile.bf, columns: shape.hidden, problem: problem, options: options)
        downWeights = try WeightSlots(
            slice, "W2", rows: shape.hidden, columns: tile.bf, problem: problem, options: options)
        gate = try slice.buffer("gate", in: .vector, rows: tile.bts, rowBytes: 4 * tile.bf)
        up = try slice.buffer("up", in: .vector, rows: tile.bts, rowBytes: 4 * tile.bf)
        rowTile = try slice.buffer("x tile", in: .vector, rows: tile.bts, rowBytes: rowBytes)
        rowScales = try slice.buffer("x scales", in: .vector, rows: tile.bts, rowBytes: 512)
        accumulator = try slice.buffer("y accumulator", in: .vector, rows: tile.bts, rowBytes: 4 * shape.hidden)
        stage = try slice.buffer("y stage", in: .vector, rows: tile.bts, rowBytes: resultBytes)
        mailbox = try slice.buffer(
            "metadata mailbox", in: .vector, rows: 2 * problem.devices, rowBytes: 4 * padded, content: .metadata)
        try Self.layOutScalars(slice, problem, tile, banks)

        routingLoaded = slice.semaphores("routing loaded", count: banks)
        metadataSent = slice.semaphore("metadata sent")
        metadataReceived = slice.semaphores("metadata received", count: 2)
        rowsStaged = slice.semaphore("rows staged")
        rowsStored = slice.semaphore("quantised rows stored")
        resultsStored = slice.semaphore("results stored")
        scatterSent = slice.semaphores("scatter sent", count: banks * local)
        scatterReceived = slice.semaphores("scatter received", count: banks * local)
        gatherSent = slice.semaphores("gather sent", count: banks * local)
        gatherReceived = slice.semaphores("gather received", count: banks)
        combineLoaded = slice.semaphores("combine loaded", count: 2)
        outputStored = slice.semaphore("output stored")
        phases = KernelPhases(slice)
    }

    /// Ids, counts of every device, cursors, starts, sizes and the active list.
    private static func layOutScalars(
        _ slice: Slice, _ problem: MoEProblem, _ tile: TileConfiguration, _ banks: Int
    ) throws(DeviceError) {
        let experts = problem.shape.experts
        let words = tile.bt * 128 + problem.devices * experts + 4 * experts + 2 * problem.expertsPerDevice + 1
        _ = try slice.buffer("routing metadata", in: .scalar, rows: banks, rowBytes: 4 * words)
    }
}

/// The parts that time is accounted to, in both kernels.
struct KernelPhases {
    let prequantize, metadata, scatter, shared, waitForRows, experts: Phase
    let gather, waitForResults, combine, barrier, store: Phase

    init(_ slice: Slice) {
        prequantize = slice.phase("prequantization")
        metadata = slice.phase("metadata")
        scatter = slice.phase("scatter issue")
        shared = slice.phase("shared expert")
        waitForRows = slice.phase("wait for rows")
        experts = slice.phase("experts")
        gather = slice.phase("gather issue")
        waitForResults = slice.phase("wait for results")
        combine = slice.phase("combine")
        barrier = slice.phase("barrier")
        store = slice.phase("output store")
    }
}
