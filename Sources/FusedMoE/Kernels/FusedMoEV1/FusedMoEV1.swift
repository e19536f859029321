import Numerics
import TPU

/// Kernel V1: hidden slices, an expert's whole intermediate in VMEM, partial sums through HBM, and one outer tile after
/// the other (docs/kernels.md#v1).
// One value is used by the programs of all devices; they run on one thread.
final class FusedMoEV1: @unchecked Sendable {
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
    func tileTokens(_ index: Int, _ device: Int) -> Range<Int> {
        let end = min((index + 1) * tile.bt, problem.tokenCount(device: device))
        return index * tile.bt..<max(index * tile.bt, end)
    }
}

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
