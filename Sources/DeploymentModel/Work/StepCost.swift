import TPU

/// The parts a step's time is accounted to.
public enum Component: String, Sendable, CaseIterable, Equatable {
    /// Attention of prompt rows over latents.
    case latentPrefill = "MLA prefill"
    /// Attention of generated rows over latents: reading the KV cache.
    case latentDecode = "MLA decode"
    /// Chunk-wise linear attention of prompt rows.
    case linearPrefill = "GLA prefill"
    /// Recurrent linear attention of generated rows: reading and writing states.
    case linearDecode = "GLA decode"
    /// Dense products of both kinds of attention.
    case projections
    /// Norms, rotary, gates, residuals.
    case norms
    /// The dense MLP of the first layers.
    case denseMLP = "dense MLP"
    /// Router product and top-k.
    case router
    /// The fused MoE kernel, with the shared expert.
    case experts
    /// Reduce-scatter and all-gather within a tensor-parallel group.
    case collectives
    /// Rows on their way between attention and expert devices, and waiting that no micro-batch fills.
    case exchange
    /// Embedding rows.
    case embedding
    /// Final norm and output head.
    case head
    /// Choosing tokens.
    case sampling
    /// What the host does between two steps and nothing hides.
    case host
}

/// Time of one step by component: whole picoseconds, so that sums are exact and runs are byte-identical.
public struct StepCost: Sendable, Equatable {
    private var values: [Picoseconds]

    /// No time.
    public init() { values = Array(repeating: 0, count: Component.allCases.count) }

    /// All components together.
    public var total: Picoseconds { values.reduce(0, +) }

    /// The components that take time, in the order of `Component`.
    public var components: [(component: Component, time: Picoseconds)] {
        zip(Component.allCases, values).filter { $0.1 != 0 }.map { ($0, $1) }
    }

    /// Time of one component.
    public subscript(_ component: Component) -> Picoseconds {
        get { values[Self.index(component)] }
        set { values[Self.index(component)] = newValue }
    }

    /// Component by component.
    public static func += (cost: inout StepCost, other: StepCost) {
        for index in cost.values.indices { cost.values[index] += other.values[index] }
    }

    /// A layer's cost, `count` times.
    static func * (cost: StepCost, count: Int) -> StepCost {
        var product = cost
        for index in product.values.indices { product.values[index] *= Picoseconds(count) }
        return product
    }

    private static func index(_ component: Component) -> Int {
        switch component {
        case .latentPrefill: 0
        case .latentDecode: 1
        case .linearPrefill: 2
        case .linearDecode: 3
        case .projections: 4
        case .norms: 5
        case .denseMLP: 6
        case .router: 7
        case .experts: 8
        case .collectives: 9
        case .exchange: 10
        case .embedding: 11
        case .head: 12
        case .sampling: 13
        case .host: 14
        }
    }
}
