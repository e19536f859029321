import TPU

extension ResidentKernel {
    /// SCATTER(b): every row to the landing zone of each of its experts, token by token, one copy per row. Issue only.
    func scatter(_ bank: Int, _ core: Core, _ state: ResidentState) throws(DeviceError) {
        core.enter(layout.phases.scatter)
        guard !options.ablations.contains(.scatter) else { return }
        extendScatterStage(from: core.now, to: core.now)
        var cursors = startRows(bank, core, state)
        let topK = problem.shape.topK
        let first = problem.firstToken(device: core.device)
        let tokens = tileTokens(bank, core.device)
        for token in tokens {
            for k in 0..<topK {
                let id = Int(routing.expertIDs[(first + token) * topK + k])
                guard id >= 0 else {
                    core.spend(costs.loop, .scalar)
                    continue
                }
                let (owner, expert) = (id / local, bank * local + id % local)
                let source = sentRows.rows(token, 1)
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
        core.spend(costs.loop * Picoseconds((tile.bt - tokens.count) * topK), .scalar)
    }

    /// Row of the landing zone at which this device's rows start, for every expert.
    private func startRows(_ bank: Int, _ core: Core, _ state: ResidentState) -> [Int] {
        let experts = problem.shape.experts
        var starts = [Int](repeating: 0, count: experts)
        state.counts[bank].withUnsafeBufferPointer { counts in
            for source in 0..<core.device {
                for expert in 0..<experts { starts[expert] += Int(counts[source * experts + expert]) }
            }
        }
        return starts
    }

    /// GATHER(b, i): the rows of each source device are neighbours: one copy per device that has any.
    func gather(_ expert: Int, _ bank: Int, _ core: Core, _ state: ResidentState) throws(DeviceError) {
        core.enter(layout.phases.gather)
        guard !options.ablations.contains(.gather), !options.ablations.contains(.scatter) else { return }
        let id = core.device * local + expert
        let slot = bank * local + expert
        var start = slot * layout.landingRows
        for device in 0..<core.deviceCount {
            let rows = state.rows(bank, source: device, expert: id)
            guard rows > 0 else {
                core.spend(costs.loop, .scalar)
                continue
            }
            let source = layout.results.rows(start, rows)
            let target = layout.returned.rows((bank * problem.shape.experts + id) * tile.bt, rows)
            start += rows
            if device == core.device {
                try core.copy(source, to: target, signalling: layout.gatherReceived[bank])
            } else {
                try core.send(
                    source, to: target, on: device, sent: layout.gatherSent[slot],
                    received: layout.gatherReceived[bank])
                state.resultsSent[slot] += rows
            }
        }
    }
}
