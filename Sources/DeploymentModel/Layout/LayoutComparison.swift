import StatePools
import TPU

/// A load of equal requests in steady state, and how arrangements of the same chips carry it: what splitting prefill
/// from decode, or attention from experts, wins or loses.
///
/// An estimate from step costs; `ironling simulate serve` runs the scheduler.
public struct LayoutComparison: Sendable {
    /// Prompt and answer of every request, and how many are in flight.
    public struct Load: Sendable, Equatable {
        /// Tokens of a prompt.
        public var promptTokens: Int
        /// Tokens of an answer.
        public var outputTokens: Int
        /// Requests in flight.
        public var concurrency: Int

        /// A load.
        public init(promptTokens: Int, outputTokens: Int, concurrency: Int) {
            self.promptTokens = promptTokens
            self.outputTokens = outputTokens
            self.concurrency = concurrency
        }
    }

    /// One arrangement.
    public struct Row: Sendable, Equatable {
        /// What it is.
        public let name: String
        /// Devices it takes.
        public let devices: Int
        /// Requests per second.
        public let requestsPerSecond: Double
        /// Milliseconds between two tokens of a request, waits for prompts included.
        public let tokenMilliseconds: Double
        /// What bounds it.
        public let bound: String

        /// Requests per second and device.
        public var perDevice: Double { requestsPerSecond / Double(max(1, devices)) }
    }

    /// The load.
    public let load: Load
    /// The arrangements; the first is the published one.
    public let rows: [Row]

    /// Compares the published layout with experts apart, and with slices of their own for prefill and decode.
    ///
    /// - Throws: `DeploymentError` for a model that does not fit one of them.
    public init(
        _ load: Load, shape: ModelShape = .ling1T, options: DeploymentOptions = .init(),
        costs: CostParameters = .default, device: DeviceParameters = .default
    ) throws(DeploymentError) {
        self.load = load
        func deployment(_ layout: DeploymentLayout) throws(DeploymentError) -> Deployment {
            try Deployment(shape: shape, layout: layout, options: options, costs: costs, device: device)
        }
        var published = try deployment(.published)
        var apart = try deployment(.disaggregated)
        var half = try deployment(.half)
        rows = [
            Self.together("colocated, as published", &published, load),
            Self.together("experts on chips of their own", &apart, load),
            Self.split("prefill and decode on slices of their own", &half, load, costs: costs),
        ]
    }

    /// "-43.2 % requests/s, -49.1 % between tokens" of a row against the published one.
    public func verdict(_ row: Row) -> (requests: Double, tokens: Double) {
        guard let base = rows.first else { return (0, 0) }
        return (
            100 * (row.perDevice / base.perDevice - 1), 100 * (row.tokenMilliseconds / base.tokenMilliseconds - 1)
        )
    }

    private static let settlingRounds = 6

    private static func seconds(_ time: Picoseconds) -> Double { Double(time) * 1e-12 }

    private static func prefill(_ deployment: inout Deployment, _ load: Load) -> Double {
        let rows = min(deployment.options.rowsPerRank, load.promptTokens)
        let step = deployment.cost(
            of: StepWork(
                ranks: deployment.ranks,
                each: [.prefill(rows: rows, context: (load.promptTokens - rows) / 2, samples: true)]))
        return Double(rows * deployment.ranks) / seconds(step.total)
    }

    private static func decode(_ deployment: inout Deployment, _ load: Load, _ concurrency: Int) -> Double {
        let (ranks, context) = (deployment.ranks, load.promptTokens + load.outputTokens / 2)
        let work = StepWork(
            ranks: (0..<ranks).map { rank in
                let own = concurrency / ranks + (rank < concurrency % ranks ? 1 : 0)
                return Array(repeating: .decode(context: context), count: own)
            })
        return seconds(deployment.cost(of: work).total)
    }

    /// Requests that the pools of a deployment hold, at most `wanted`.
    private static func held(_ deployment: Deployment, _ load: Load) -> Int {
        let pages = (load.promptTokens + load.outputTokens + PoolCalculator.pageTokens - 1) / PoolCalculator.pageTokens
        let memory = deployment.memory
        let byTokens = memory.tokensPerRank / max(1, pages * PoolCalculator.pageTokens)
        return min(load.concurrency, min(memory.requestsPerRank, byTokens) * deployment.ranks)
    }

    /// Prompts first, then everybody decodes: the published scheduler with a closed loop.
    private static func together(_ name: String, _ deployment: inout Deployment, _ load: Load) -> Row {
        let held = max(1, held(deployment, load))
        let prefillRate = prefill(&deployment, load)
        let step = decode(&deployment, load, held)
        let prompts = Double(held * load.promptTokens) / prefillRate
        let answers = Double(load.outputTokens) * step
        // On average half of the others' prompts come between a request's first token and its second.
        let between = (prompts / 2 + answers) / Double(max(1, load.outputTokens))
        return Row(
            name: name, devices: deployment.layout.devices,
            requestsPerSecond: Double(held) / (prompts + answers), tokenMilliseconds: between * 1e3,
            bound: held < load.concurrency
                ? "memory: \(held) requests at once" : prompts > answers ? "prefill" : "decode")
    }

    /// Each side on a slice of its own, busy all the time; the slower one bounds. State moves over the network of the
    /// prefill slice's chips.
    private static func split(
        _ name: String, _ deployment: inout Deployment, _ load: Load, costs: CostParameters
    ) -> Row {
        let held = max(1, held(deployment, load))
        let prompts = prefill(&deployment, load) / Double(load.promptTokens)
        let step = decode(&deployment, load, held)
        let answers = Double(held) / (Double(load.outputTokens) * step)
        let memory = deployment.memory.calculator
        let bytes = Double(
            memory.bytesPerRequest * deployment.layout.tensorParallel + load.promptTokens * memory.bytesPerToken)
        let network = costs[.network] / 8 * 1e9 * Double(deployment.layout.devices / 2)
        let bounds = [("prefill", prompts), ("decode", answers), ("hand-off", network / bytes)]
        let least = bounds.min { $0.1 < $1.1 } ?? ("prefill", prompts)
        // As many requests decode at once as the other side brings in the time that their tokens take: from one upwards.
        var between = decode(&deployment, load, 1)
        for _ in 0..<Self.settlingRounds {
            let decoding = min(held, max(1, Int((least.1 * Double(load.outputTokens) * between).rounded(.up))))
            between = decode(&deployment, load, decoding)
        }
        return Row(
            name: name, devices: 2 * deployment.layout.devices, requestsPerSecond: least.1,
            tokenMilliseconds: between * 1e3,
            bound: least.0 == "decode" && held < load.concurrency ? "memory: \(held) requests decode at once" : least.0)
    }
}
