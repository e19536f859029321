import Numerics
import TPU

extension SlicedKernel {
    /// METADATA(b), as in V2; the mailbox has one bank because outer tiles do not overlap.
    func exchangeMetadata(_ index: Int, _ core: Core, _ state: SlicedState) async throws(DeviceError) {
        core.enter(layout.phases.metadata)
        try await core.wait(layout.routingLoaded[index & 1], bytes: layout.routing.rowBytes)
        state.rowsSent = Array(repeating: 0, count: local)
        state.resultsSent = state.rowsSent
        let step = MetadataExchangeStep(
            mailbox: layout.mailbox, firstRow: 0, sent: layout.metadataSent, received: layout.metadataReceived,
            problem: problem, routing: routing, tile: tile, costs: costs)
        state.counts = try await step.run(tileTokens(index, core.device), options.metadata, core)
    }

    /// SCATTER(b): bf16 rows, one copy each. Issue only.
    func scatter(_ index: Int, _ core: Core, _ state: SlicedState) throws(DeviceError) {
        core.enter(layout.phases.scatter)
        guard !options.ablations.contains(.scatter) else { return }
        let topK = problem.shape.topK
        let first = problem.firstToken(device: core.device)
        var cursors = (0..<problem.shape.experts).map { state.start(source: core.device, expert: $0) }
        for token in tileTokens(index, core.device) {
            for k in 0..<topK {
                let id = Int(routing.expertIDs[(first + token) * topK + k])
                guard id >= 0 else {
                    core.spend(costs.loop, .scalar)
                    continue
                }
                let (owner, expert) = (id / local, id % local)
                let source = layout.inputs.tokens.rows(token, 1)
                let target = layout.landing.rows(expert * layout.landingRows + cursors[id], 1)
                cursors[id] += 1
                if owner == core.device {
                    try core.copy(source, to: target, signalling: layout.scatterReceived[expert])
                } else {
                    try core.send(
                        source, to: target, on: owner, sent: layout.scatterSent[expert],
                        received: layout.scatterReceived[expert])
                    state.rowsSent[expert] += 1
                }
            }
        }
    }

    /// GATHER(b, i): one copy per source device that has rows.
    func gather(_ expert: Int, _ core: Core, _ state: SlicedState) throws(DeviceError) {
        core.enter(layout.phases.gather)
        guard !options.ablations.contains(.gather), !options.ablations.contains(.scatter) else { return }
        let id = core.device * local + expert
        var start = expert * layout.landingRows
        for device in 0..<core.deviceCount {
            let rows = state.rows(source: device, expert: id)
            guard rows > 0 else {
                core.spend(costs.loop, .scalar)
                continue
            }
            let source = layout.results.rows(start, rows)
            let target = layout.returned.rows(id * tile.bt, rows)
            start += rows
            if device == core.device {
                try core.copy(source, to: target, signalling: layout.gatherReceived)
            } else {
                try core.send(
                    source, to: target, on: device, sent: layout.gatherSent[expert], received: layout.gatherReceived)
                state.resultsSent[expert] += rows
            }
        }
    }

    /// COMBINE(b), as in V2, with the shared expert's fp32 sums.
    func combine(_ index: Int, _ core: Core, _ state: SlicedState) async throws(DeviceError) {
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
