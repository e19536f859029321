import Numerics
import TPU

/// Kernel V2: tokens and accumulators stay in VMEM, weights stream through two slots, scatter and gather fly while
/// experts compute (docs/kernels.md#v2, which has the steps K, P and Q).
// One value is used by the programs of all devices; they run on one thread.
final class FusedMoEV2: @unchecked Sendable {
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
    func tileTokens(_ bank: Int, _ device: Int) -> Range<Int> {
        let end = min((bank + 1) * tile.bt, problem.tokenCount(device: device))
        return bank * tile.bt..<max(bank * tile.bt, end)
    }

    func extendScatterStage(from start: Picoseconds, to end: Picoseconds) {
        let known = scatterStage ?? start..<end
        scatterStage = min(known.lowerBound, start)..<max(known.upperBound, end)
    }

    var isQuantized: Bool { problem.quantization.tokens.isQuantized }

    /// Rows as they are sent: quantised ones, or the tokens themselves.
    var sentRows: Buffer { layout.quantized ?? layout.inputs.tokens }

    /// Ids and weights of an outer tile: two copies.
    private func fetchTopK(_ bank: Int, _ core: Core) throws(DeviceError) {
        try core.copy(
            layout.inputs.routing.rows(bank, 1), to: layout.routing.rows(bank % banks, 1),
            signalling: layout.routingLoaded[bank % banks], pieces: 2)
    }
}

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
