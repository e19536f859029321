import DeploymentModel
import FusedMoE
import Scheduling
import Serving
import StatePools
import TPU

/// Slices of one deployment: what each holds, how it plans steps, and how state leaves it. The simulator and the live
/// emulation make their ranks from this one value.
public struct ServingDeployment: Sendable {
    /// What is chosen besides the model.
    public struct Choice: Sendable, Equatable {
        /// The slice, by name.
        public var slice = "v7x-16"
        /// `colocated`: experts on the attention devices. `disaggregated`: experts on half of the devices.
        public var layout = "colocated"
        /// Devices of an attention rank.
        public var tensorParallel = 4
        /// Which fused kernel runs the MoE layers.
        public var kernel = KernelVersion.v2
        /// Prompt rows per rank and step, a multiple of 64.
        public var prefillChunk = 2048
        /// What a step may be made of.
        public var policy = StepPolicy.prefillFirst
        /// Share of the tokens a request may still generate that admission sets memory aside for.
        public var expectedGrowth = 1.0
        /// An idle slice begins its first step when nothing more has come for so long, so that a burst's requests are
        /// computed together.
        public var gatherMicroseconds: UInt64 = 3000
        /// Requests that wait on a rank, at most.
        public var waiting = 65_536
        /// Recurrent slots of a rank; nil for what the HBM holds.
        public var slots: Int?
        /// Tokens of KV of a rank; nil for what the HBM holds.
        public var tokens: Int?
        /// Seed of the routing that the kernel is simulated with.
        public var seed: UInt64 = 0

        /// As published.
        public init() {}

        /// The layouts' names.
        public static let layouts = ["colocated", "disaggregated"]
    }

    /// Nanoseconds from a state's last byte leaving a slice to its being usable in another; assumed.
    public static let linkNanoseconds: UInt64 = 100_000

    /// The choices.
    public let choice: Choice
    /// What steps cost and memory holds.
    public let deployment: Deployment
    /// Recurrent slots of a rank.
    public let slots: Int
    /// KV pages of a rank.
    public let pages: Int

    /// - Throws: `DeploymentError` that names what does not fit together, or does not fit the HBM, with the sum.
    public init(shape: ModelShape, _ choice: Choice) throws(DeploymentError) {
        self.choice = choice
        deployment = try Deployment(
            shape: shape, layout: try Self.layout(choice),
            options: DeploymentOptions(
                kernel: choice.kernel, rowsPerRank: choice.prefillChunk, seed: choice.seed))
        let plan = deployment.memory
        slots = choice.slots ?? plan.requestsPerRank
        let tokens = choice.tokens ?? plan.tokensPerRank
        pages = max(1, tokens / PoolCalculator.pageTokens)
        // The two pools share what is left: more of one must leave room for the other.
        if choice.slots != nil || choice.tokens != nil { try plan.requireRoom(slots: slots, tokens: tokens) }
    }

    private static func layout(_ choice: Choice) throws(DeploymentError) -> DeploymentLayout {
        let devices: Int
        do { devices = try SliceTopology(named: choice.slice).deviceCount } catch {
            throw DeploymentError(.layout, error.description)
        }
        let (tensor, isApart) = (choice.tensorParallel, choice.layout == "disaggregated")
        guard isApart || choice.layout == "colocated" else {
            throw DeploymentError(
                .layout, "the layout is \(Choice.layouts.joined(separator: " or ")), not \"\(choice.layout)\"")
        }
        let attention = isApart ? devices / 2 : devices
        guard tensor > 0, attention > 0, attention % tensor == 0 else {
            throw DeploymentError(
                .layout,
                "\(attention) attention devices of \(choice.slice) do not split into ranks of \(tensor) devices")
        }
        return DeploymentLayout(
            slice: choice.slice, dataParallel: attention / tensor, tensorParallel: tensor,
            experts: isApart ? .apart(devices: devices - attention, microBatches: 3) : .colocated)
    }

    /// Attention ranks that go in lockstep.
    public var ranks: Int { deployment.ranks }

    /// Limits of each rank's scheduler. It computes as many requests as it holds.
    public var limits: SchedulerLimits {
        var limits = SchedulerLimits(
            rowsPerStep: choice.prefillChunk + slots, prefillChunk: choice.prefillChunk, running: slots,
            waiting: choice.waiting)
        limits.stepPolicy = choice.policy
        limits.expectedGrowth = choice.expectedGrowth
        limits.waitMicroseconds = 3_600_000_000
        limits.gatherMicroseconds = choice.gatherMicroseconds
        limits.gatherLimitMicroseconds = 16 * choice.gatherMicroseconds
        return limits
    }

    /// The slice's ranks, empty.
    public func group(firstRank: Int = 0) -> Ranks {
        Ranks(limits: limits, ranks: ranks, slotCount: slots, pageCount: pages, firstRank: firstRank)
    }

    /// How a rank's states leave the slice: by the network of the chips that hold them, two devices each.
    public var link: TransferLink {
        let calculator = deployment.memory.calculator
        let chips = max(1, choice.tensorParallel / 2)
        return TransferLink(
            bytesPerSecond: deployment.costs[.network] * 1e9 / 8 * Double(chips),
            latencyNanoseconds: Self.linkNanoseconds,
            bytesPerRequest: calculator.bytesPerRequest * choice.tensorParallel,
            bytesPerToken: calculator.bytesPerToken)
    }

    /// A slice of a scenario.
    public func slice(_ name: String, part: Part = .both, firstRank: Int = 0) -> ServingSlice {
        ServingSlice(
            name: name, part: part, group: group(firstRank: firstRank), costs: deployment,
            link: part == .prefill ? link : nil)
    }
}

extension MemoryPlan {
    /// Refuses pools that the HBM does not hold beside weights and workspace, with the sum.
    func requireRoom(slots: Int, tokens: Int) throws(DeploymentError) {
        guard let device = devices.first else { return }
        let fixed = device.parts.filter { !$0.name.hasSuffix(" pool") }
        let (recurrent, tooManySlots) = (slots + 1).multipliedReportingOverflow(by: calculator.bytesPerRequest)
        let (latent, tooManyTokens) = (tokens + PoolCalculator.pageTokens).multipliedReportingOverflow(
            by: calculator.bytesPerToken)
        let parts = fixed + [("recurrent pool", recurrent), ("KV pool", latent)]
        guard !tooManySlots, !tooManyTokens, parts.reduce(0, { $0 + $1.bytes }) <= device.limit else {
            func text(_ bytes: Int) -> String { "\((Double(bytes) / 107_374_182.4).rounded() / 10) GiB" }
            throw DeploymentError(
                .memory,
                "\(slots) slots and \(tokens) tokens of KV on a rank do not fit the HBM of a device: "
                    + parts.map { "\($0.name) \(text($0.bytes))" }.joined(separator: " + ")
                    + " = \(text(parts.reduce(0) { $0 &+ $1.bytes })) of \(text(device.limit)) usable")
        }
    }
}
