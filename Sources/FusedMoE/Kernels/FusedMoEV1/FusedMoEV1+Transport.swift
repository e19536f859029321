import Numerics
import TPU

extension FusedMoEV1 {
    /// METADATA(b), as in V2; the mailbox has one bank because outer tiles do not overlap.
    func metadata(_ index: Int, _ core: Core, _ state: FusedMoEV1State) async throws(DeviceError) {
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
    func scatter(_ index: Int, _ core: Core, _ state: FusedMoEV1State) throws(DeviceError) {
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
    func gather(_ expert: Int, _ core: Core, _ state: FusedMoEV1State) throws(DeviceError) {
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
    func combine(_ index: Int, _ core: Core, _ state: FusedMoEV1State) async throws(DeviceError) {
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
