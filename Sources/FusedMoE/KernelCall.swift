import TPU

/// Everything that decides what a simulated call of a kernel takes.
public struct KernelCall: Sendable, Equatable {
    /// Which program.
    public var kernel: KernelVersion
    /// The layer, its tokens and devices.
    public var problem: MoEProblem
    /// The effective tile.
    public var tile: TileConfiguration
    /// The program's switches.
    public var options: KernelOptions
    /// The slice.
    public var topology: SliceTopology
    /// The device's numbers.
    public var parameters: DeviceParameters
    /// How tokens choose experts.
    public var routing: RoutingPattern
    /// Seed of the routing.
    public var seed: UInt64

    /// A call with its tuned tile and the sizes a user gave.
    ///
    /// - Throws: `FusedMoEError` that names what cannot be done.
    public init(
        kernel: KernelVersion, problem: MoEProblem, overrides: TileOverrides = .init(),
        options: KernelOptions = .init(), topology: SliceTopology, parameters: DeviceParameters = .default,
        routing: RoutingPattern = .uniform, seed: UInt64 = 0
    ) throws(FusedMoEError) {
        self.kernel = kernel
        self.problem = try problem.validated()
        self.options = try options.validated(for: problem, kernel: kernel)
        guard problem.devices <= topology.deviceCount else {
            throw FusedMoEError(
                .problem,
                "ep is \(problem.devices), the slice \(topology.name) has \(topology.deviceCount) devices: "
                    + "\(problem.devices - topology.deviceCount) too many")
        }
        // A part that is switched off must not change the tile, or its cost would be the tile's.
        var whole = options
        whole.ablations = []
        tile = try TunedTiles.tile(for: problem, kernel: kernel, options: whole, overrides: overrides)
        self.topology = topology
        self.parameters = parameters
        self.routing = routing
        self.seed = seed
    }

    /// Memory the tile takes.
    public var memory: MemoryEstimate {
        MemoryEstimate(tile: tile, problem: problem, kernel: kernel, options: options)
    }

    /// Runs the program shape-only.
    ///
    /// - Throws: `FusedMoEError`, also for what the device refuses.
    public func run(recordsTimeline: Bool = false) throws(FusedMoEError) -> KernelRun {
        try FusedMoE.simulate(
            kernel: kernel, problem: problem, tile: tile, options: options, topology: topology,
            parameters: parameters, routing: RoutingTable.generated(routing, for: problem, seed: seed),
            recordsTimeline: recordsTimeline)
    }
}
