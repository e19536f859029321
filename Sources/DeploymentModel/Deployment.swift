import FusedMoE
import StatePools
import TPU

/// The switches of a deployment besides its layout.
public struct DeploymentOptions: Sendable, Equatable {
    /// Which fused kernel runs the MoE layers.
    public var kernel: KernelVersion
    /// Who computes the shared expert: the kernel, or an operation of its own.
    public var sharedExpert: SharedExpertPlacement
    /// How the kernel exchanges routing counts.
    public var metadata: MetadataExchange
    /// Most rows one rank computes in a step.
    public var rowsPerRank: Int
    /// Seed of the routing that the kernel is simulated with.
    public var seed: UInt64

    /// The published row unless said otherwise: V2 with the shared expert inside, prompts in chunks of 2,048 per rank.
    public init(
        kernel: KernelVersion = .v2, sharedExpert: SharedExpertPlacement = .inKernel,
        metadata: MetadataExchange = .butterfly, rowsPerRank: Int = 2048, seed: UInt64 = 0
    ) {
        self.kernel = kernel
        self.sharedExpert = sharedExpert
        self.metadata = metadata
        self.rowsPerRank = rowsPerRank
        self.seed = seed
    }
}

/// A model on a slice of simulated devices: what a step takes, and what memory holds.
///
/// A value: the same work costs the same picoseconds, whoever asks and in whatever order. Kernel times are simulated when
/// they are first needed and remembered in the value.
public struct Deployment: Sendable {
    /// The model.
    public let shape: ModelShape
    /// Where its parts lie.
    public let layout: DeploymentLayout
    /// The switches.
    public let options: DeploymentOptions
    /// The costs' numbers.
    public let costs: CostParameters
    /// The device's numbers.
    public let device: DeviceParameters
    /// What the HBM holds.
    public let memory: MemoryPlan
    let attention: AttentionCosts
    private let topology: SliceTopology
    private var kernels: KernelTimes

    /// Attention ranks that go in lockstep.
    public var ranks: Int { layout.dataParallel }

    /// A deployment.
    ///
    /// - Throws: `DeploymentError` that names what cannot be; with code `.memory` when weights, workspace and the smallest
    ///   pools exceed the HBM of a device, with the sum.
    public init(
        shape: ModelShape = .ling1T, layout: DeploymentLayout = .published, options: DeploymentOptions = .init(),
        costs: CostParameters = .default, device: DeviceParameters = .default
    ) throws(DeploymentError) {
        self.shape = try shape.validated()
        self.layout = layout
        self.options = options
        self.costs = costs
        self.device = device
        topology = try layout.topology(shape)
        guard (1...65_536).contains(options.rowsPerRank) else {
            throw DeploymentError(
                .layout, "rows per rank and step are \(options.rowsPerRank), they must be from 1 to 65536")
        }
        attention = AttentionCosts(shape, tensorParallel: layout.tensorParallel, costs: costs, device: device)
        kernels = KernelTimes(
            kernel: options.kernel, shape: shape.experts.paddedToLanes, devices: layout.expertDevices,
            options: KernelOptions(sharedExpert: options.sharedExpert, metadata: options.metadata),
            topology: topology, parameters: device, seed: options.seed)
        var scratch = 0
        for rows in Self.bucketSizes(upTo: options.rowsPerRank) {
            scratch = max(scratch, WorkspaceBytes.kernel(try kernels.call(tokens: rows * layout.dataParallel)))
        }
        memory = try MemoryPlan(
            shape: shape, layout: layout, kernelScratch: scratch,
            activations: WorkspaceBytes.activations(
                shape, tensorParallel: layout.tensorParallel, rows: options.rowsPerRank),
            costs: costs)
    }

    /// Row counts per rank that programs are compiled for.
    static func bucketSizes(upTo rows: Int) -> [Int] {
        Array(sequence(first: 1) { $0 * 2 }.prefix { $0 < 2 * rows })
    }

    /// Simulates the kernel for all row counts up to `rows` per rank, so that no later step waits for it.
    public mutating func prepare(rowsPerRank rows: Int) {
        for size in Self.bucketSizes(upTo: max(1, rows)) { _ = kernelTime(rows: size) }
    }

    /// Time of one step.
    public mutating func cost(of work: StepWork) -> StepCost {
        guard !work.isEmpty else { return StepCost() }
        switch layout.experts {
        case .colocated: return colocated(work.ranks.map(RankWork.init))
        case .apart(_, let count): return apart(work, microBatches: count)
        }
    }

    /// The kernel's time with `rows` rows on every rank.
    mutating func kernelTime(rows: Int) -> Picoseconds { kernels.time(tokens: rows * layout.dataParallel) }

    private mutating func colocated(_ ranks: [RankWork]) -> StepCost {
        let rows = ranks.reduce(0) { max($0, $1.paddedRows) }
        var cost = layers(ranks, rows: rows)
        cost[.experts] = Picoseconds(shape.expertLayers) * experts(rows: rows)
        cost += once(ranks, rows: rows)
        return cost
    }

    /// All layers without experts: each as long as the slowest rank's.
    private func layers(_ ranks: [RankWork], rows: Int) -> StepCost {
        func slowest(_ layer: (RankWork) -> StepCost) -> StepCost {
            var worst = StepCost()
            for rank in ranks {
                let cost = layer(rank)
                if cost.total > worst.total { worst = cost }
            }
            return worst
        }
        var cost = slowest { attention.linearLayer($0, rows: rows) } * shape.linearLayers
        cost += slowest { attention.latentLayer($0, rows: rows) } * shape.latentLayers
        cost += attention.denseLayer(rows: rows) * shape.denseLayers
        cost += attention.routerLayer(rows: rows) * shape.expertLayers
        return cost
    }

    private mutating func experts(rows: Int) -> Picoseconds {
        kernelTime(rows: rows) + (options.sharedExpert == .external ? attention.sharedExpert(rows: rows) : 0)
    }

    private func once(_ ranks: [RankWork], rows: Int) -> StepCost {
        attention.once(rows: rows, samples: ranks.reduce(0) { max($0, $1.samples) })
    }

    /// Attention and experts take turns, or work on different micro-batches, whichever is faster for this step.
    private mutating func apart(_ work: StepWork, microBatches: Int) -> StepCost {
        var best = apart(parts: [work])
        for count in 2..<max(3, microBatches + 1) where count <= microBatches {
            let cost = apart(parts: work.split(into: count))
            if cost.total < best.total { best = cost }
        }
        let ranks = work.ranks.map(RankWork.init)
        best += once(ranks, rows: ranks.reduce(0) { max($0, $1.paddedRows) })
        return best
    }

    /// With a, e and c for a layer's attention, experts and one way between them, and f the longest of the three, L layers
    /// of m micro-batches take max(L (a + e + 2c), a + e + 2c + f (m L - 1)).
    private mutating func apart(parts: [StepWork]) -> StepCost {
        var cost = StepCost()
        var (longest, expertTime, exchangeTime) = (Picoseconds(0), Picoseconds(0), Picoseconds(0))
        for part in parts {
            let ranks = part.ranks.map(RankWork.init)
            let rows = ranks.reduce(0) { max($0, $1.paddedRows) }
            let own = layers(ranks, rows: rows)
            cost += own
            longest = max(longest, own.total)
            expertTime = max(expertTime, Picoseconds(shape.expertLayers) * experts(rows: rows))
            exchangeTime = max(exchangeTime, Picoseconds(shape.expertLayers) * exchange(rows: rows))
        }
        let chain = longest + expertTime + 2 * exchangeTime
        let stage = max(longest, expertTime, exchangeTime)
        let layers = Picoseconds(shape.layers)
        let total = max(chain, chain / layers + stage * Picoseconds(parts.count) - stage / layers)
        // The attention devices' own time as it is; what they wait for, in proportion to what they wait for.
        let rest = max(0, total - cost.total)
        let share = Double(expertTime) / Double(max(1, expertTime + 2 * exchangeTime))
        cost[.experts] = Picoseconds((Double(rest) * share).rounded())
        cost[.exchange] = rest - cost[.experts]
        return cost
    }

    /// One way between attention and expert devices, once per layer: fp8 rows there, bf16 rows back; the mean of both.
    private func exchange(rows: Int) -> Picoseconds {
        let bytes = Double(rows * layout.dataParallel * shape.hidden) * 1.5
        return attention.exchange(bytes: bytes, links: topology.x * topology.y)
    }
}
