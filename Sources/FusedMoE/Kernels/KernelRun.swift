import TPU

/// What a call of a kernel took, and what it computed.
public struct KernelRun: Sendable {
    /// Times and use of the device.
    public let result: SimulationResult
    /// The tile it ran with.
    public let tile: TileConfiguration
    /// Core time of the routed experts' first products: mean over devices.
    public let firstProducts: Picoseconds
    /// From the first row that a device scattered to the last that one waited for; 0 for V1, whose outer tiles do not
    /// overlap.
    public let scatterStage: Picoseconds
    /// [T, H] in the order of the tokens; nil when tensors were only shapes.
    public let output: [Float]?
    /// The publishers' estimate of on-chip memory, which decides what fits; `bufferMebibytes` is what was laid out.
    public internal(set) var memory: MemoryEstimate?

    init(
        result: SimulationResult, tile: TileConfiguration, firstProducts: Picoseconds, scatterStage: Picoseconds = 0,
        output: [Float]?
    ) {
        self.result = result
        self.tile = tile
        self.firstProducts = firstProducts
        self.scatterStage = scatterStage
        self.output = output
    }

    /// From the first instruction to the end of the last device.
    public var latency: Picoseconds { result.latency }

    /// Vector memory of the buffers that the kernel laid out on every device, MiB.
    public var bufferMebibytes: Double { Double(result.vectorBytes) / 1_048_576 }

    /// Where the core's time went.
    public var breakdown: KernelBreakdown { KernelBreakdown(result) }
}

/// A kernel's core time by part: mean over devices. The parts add up to `total`.
public struct KernelBreakdown: Sendable {
    /// Start and end of the kernel.
    public let launch: Picoseconds
    /// Quantisation of rows before they are sent.
    public let prequantization: Picoseconds
    /// Exchange of routing counts, with its barriers.
    public let metadata: Picoseconds
    /// Issuing the scatter.
    public let scatterIssue: Picoseconds
    /// Waiting for an expert's rows.
    public let waitForRows: Picoseconds
    /// The shared expert's own time, all of it on the core; what it adds to the latency is less, because waits for rows
    /// shrink by as much.
    public let sharedExposed: Picoseconds
    /// Routed experts, waits for their weights included.
    public let experts: Picoseconds
    /// Issuing the gather.
    public let gatherIssue: Picoseconds
    /// Waiting for results.
    public let waitForResults: Picoseconds
    /// Weighted addition of results.
    public let combine: Picoseconds
    /// Barriers outside of the metadata exchange.
    public let barriers: Picoseconds
    /// Waiting for the output to be stored.
    public let outputStore: Picoseconds
    /// What the core stood still for, all parts together: other devices (rows, results, counts, barriers), or its own HBM.
    public let stalls: (onPeers: Picoseconds, onMemory: Picoseconds)

    init(_ result: SimulationResult) {
        launch = result.time(of: "launch")
        prequantization = result.time(of: "prequantization")
        metadata = result.time(of: "metadata")
        scatterIssue = result.time(of: "scatter issue")
        waitForRows = result.time(of: "wait for rows")
        sharedExposed = result.time(of: "shared expert")
        experts = result.time(of: "experts")
        gatherIssue = result.time(of: "gather issue")
        waitForResults = result.time(of: "wait for results")
        combine = result.time(of: "combine")
        barriers = result.time(of: "barrier")
        outputStore = result.time(of: "output store")
        let peers = ["metadata", "wait for rows", "wait for results", "barrier"]
        stalls = result.phases.reduce(into: (0, 0)) { sum, phase in
            if peers.contains(phase.name) { sum.0 += phase.stalled } else { sum.1 += phase.stalled }
        }
    }

    /// Scatter that nothing hides: issuing it, and waiting for rows.
    public var visibleScatter: Picoseconds { scatterIssue + waitForRows }

    /// Gather that nothing hides: issuing it, and waiting for results.
    public var visibleGather: Picoseconds { gatherIssue + waitForResults }

    /// From an expert's wait for rows to the issue of its results.
    public var routedWindow: Picoseconds { waitForRows + experts + gatherIssue }

    /// Start, end and output: what none of the named parts is.
    public var other: Picoseconds { launch + outputStore }

    /// All parts.
    public var total: Picoseconds {
        other + prequantization + metadata + visibleScatter + sharedExposed + experts + visibleGather + combine
            + barriers
    }
}
