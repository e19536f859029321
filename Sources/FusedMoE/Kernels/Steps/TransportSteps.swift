import TPU

/// SCATTER(b) of both kernels: every row to the landing zone of each of its experts, token by token, one copy per row.
struct ScatterStep {
    /// Rows as they are sent.
    let rows: Buffer
    let landing: Buffer
    /// Rows of one expert's landing zone.
    let landingRows: Int
    /// The outer tile's first landing zone: those of the local experts follow each other.
    let firstSlot: Int
    /// One semaphore per landing zone.
    let sent, received: SemaphoreArray
    let problem: MoEProblem
    let routing: RoutingTable
    let costs: CostModel

    /// Issues the copies of the device's rows `tokens`, out of `tileRows` the rest of which are padding.
    ///
    /// - rowsSent: remote rows by landing zone, counted up.
    func run(
        _ tokens: Range<Int>, of tileRows: Int, _ counts: RoutingCounts, rowsSent: inout [Int], _ core: Core
    ) throws(DeviceError) {
        var cursors = counts.starts(source: core.device)
        let (topK, local) = (problem.shape.topK, problem.expertsPerDevice)
        let first = problem.firstToken(device: core.device)
        for token in tokens {
            for k in 0..<topK {
                let id = Int(routing.expertIDs[(first + token) * topK + k])
                guard id >= 0 else {
                    core.spend(costs.loop, .scalar)
                    continue
                }
                let (owner, slot) = (id / local, firstSlot + id % local)
                let source = rows.rows(token, 1)
                let target = landing.rows(slot * landingRows + cursors[id], 1)
                cursors[id] += 1
                if owner == core.device {
                    try core.copy(source, to: target, signalling: received[slot])
                } else {
                    try core.send(source, to: target, on: owner, sent: sent[slot], received: received[slot])
                    rowsSent[slot] += 1
                }
            }
        }
        core.spend(costs.loop * Picoseconds((tileRows - tokens.count) * topK), .scalar)
    }
}

/// GATHER(b, i) of both kernels: the results of each source device are neighbours, so one copy per device that has any
/// brings them back.
struct GatherStep {
    let results: Buffer
    /// The expert's first result row.
    let firstResult: Int
    let returned: Buffer
    /// Where the expert's rows begin on their source device.
    let firstReturned: Int
    let sent, received: Semaphore
    let costs: CostModel

    /// Issues the copies of an expert's results; returns how many rows leave the device.
    func run(_ counts: RoutingCounts, expert: Int, _ core: Core) throws(DeviceError) -> Int {
        var rowsSent = 0
        for device in 0..<core.deviceCount {
            let rows = counts.rows(source: device, expert: expert)
            guard rows > 0 else {
                core.spend(costs.loop, .scalar)
                continue
            }
            let source = results.rows(firstResult + counts.start(source: device, expert: expert), rows)
            let target = returned.rows(firstReturned, rows)
            if device == core.device {
                try core.copy(source, to: target, signalling: received)
            } else {
                try core.send(source, to: target, on: device, sent: sent, received: received)
                rowsSent += rows
            }
        }
        return rowsSent
    }
}
