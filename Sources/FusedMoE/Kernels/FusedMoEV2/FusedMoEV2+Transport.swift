import TPU

extension FusedMoEV2 {
    /// SCATTER(b), into the outer tile's bank of landing zones. Issue only.
    func scatter(_ bank: Int, _ core: Core, _ state: FusedMoEV2State) throws(DeviceError) {
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
    func gather(_ expert: Int, _ bank: Int, _ core: Core, _ state: FusedMoEV2State) throws(DeviceError) {
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
