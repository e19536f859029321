import TPU

/// METADATA(b) of both kernels: every device learns how many rows every device sends to every expert.
struct MetadataExchangeStep {
    let mailbox: Buffer
    /// Where this bank of the mailbox begins.
    let firstRow: Int
    let sent: Semaphore
    let received: Semaphore
    let problem: MoEProblem
    let routing: RoutingTable
    let tile: TileConfiguration
    let costs: CostModel

    private var paddedExperts: Int { mailbox.rowBytes / 4 }

    /// Exchanges the counts of the device's rows `tokens`; returns those of all devices.
    func run(
        _ tokens: Range<Int>, _ exchange: MetadataExchange, _ core: Core
    ) async throws(DeviceError) -> RoutingCounts {
        try countOwnRows(tokens, core)
        // Nobody may write a mailbox before its owner has read what it brought last.
        try await core.barrier()
        switch exchange {
        case .direct: try await pushToAll(core)
        case .butterfly: try await exchangeDoubling(core)
        }
        try await core.barrier()
        return try read(core)
    }

    /// Histogram of the tile's ids over the experts' lanes, into the own row.
    private func countOwnRows(_ tokens: Range<Int>, _ core: Core) throws(DeviceError) {
        let topK = problem.shape.topK
        core.spend(costs.vector(elements: tile.bt * topK * paddedExperts, operations: 2), .vector)
        guard let row = try core.write(mailbox.rows(firstRow + core.device, 1)) else { return }
        let counts = row.assumingMemoryBound(to: Int32.self)
        for expert in 0..<paddedExperts { counts[expert] = 0 }
        let first = problem.firstToken(device: core.device)
        for token in tokens {
            for k in 0..<topK {
                let id = Int(routing.expertIDs[(first + token) * topK + k])
                if id >= 0 { counts[id] += 1 }
            }
        }
    }

    /// One push of the own row to every peer.
    private func pushToAll(_ core: Core) async throws(DeviceError) {
        let row = mailbox.rows(firstRow + core.device, 1)
        let peers = core.deviceCount - 1
        for step in 0..<peers {
            try core.send(row, to: row, on: (core.device + 1 + step) % core.deviceCount, sent: sent, received: received)
        }
        // One wait per peer for its row, and one for the own.
        core.spend(2 * costs.loop * Picoseconds(peers), .scalar)
        try await core.wait(received, bytes: peers * row.bytes)
        try await core.wait(sent, bytes: peers * row.bytes)
    }

    /// Doubling rounds: in round r a device swaps the 2^r rows it has with the device whose rank differs in bit r.
    private func exchangeDoubling(_ core: Core) async throws(DeviceError) {
        var width = 1
        while width < core.deviceCount {
            let rows = mailbox.rows(firstRow + core.device / width * width, width)
            try core.send(rows, to: rows, on: core.device ^ width, sent: sent, received: received)
            try await core.wait(received, bytes: rows.bytes)
            try await core.wait(sent, bytes: rows.bytes)
            width *= 2
            // No round may overtake the one before it.
            try await core.barrier()
        }
    }

    /// Sums and prefixes over the rows of all devices, and five small copies into scalar memory.
    private func read(_ core: Core) throws(DeviceError) -> RoutingCounts {
        core.spend(costs.vector(elements: problem.devices * paddedExperts, operations: 3), .vector)
        core.spend(core.copyIssueTime * 5 + core.onChipCopyTime, .scalar)
        guard let bytes = try core.read(mailbox.rows(firstRow, problem.devices)) else {
            return RoutingCounts(problem)
        }
        let rows = bytes.assumingMemoryBound(to: Int32.self)
        let experts = problem.shape.experts
        let counts = [Int32](unsafeUninitializedCapacity: problem.devices * experts) { counts, count in
            for device in 0..<problem.devices {
                for expert in 0..<experts {
                    counts[device * experts + expert] = rows[device * paddedExperts + expert]
                }
            }
            count = problem.devices * experts
        }
        return RoutingCounts(rows: counts, problem)
    }
}
