/// Which program runs.
public enum KernelVersion: String, Sendable, Equatable, CaseIterable {
    /// Hidden slices, partial sums through HBM, strictly serial over token tiles (docs/kernels.md#v1).
    case v1
    /// Tokens and accumulators resident in VMEM, banked scatter and gather (docs/kernels.md#v2).
    case v2
}

/// Who computes the shared expert.
public enum SharedExpertPlacement: String, Sendable, Equatable, CaseIterable {
    /// The kernel, while its scatter flies.
    case inKernel = "in-kernel"
    /// Another operation after the kernel; not part of its latency.
    case external
    /// The layer has none.
    case none
}

/// How devices learn each other's routing counts.
public enum MetadataExchange: String, Sendable, Equatable, CaseIterable {
    /// log2(N) rounds with a barrier each, as the blog measured.
    case butterfly
    /// One push to every peer, as published since 2026-06-23.
    case direct
}

/// When rows are quantised.
public enum Prequantization: String, Sendable, Equatable, CaseIterable {
    /// Each outer token tile before its scatter.
    case perTile = "per-bt"
    /// All rows of the device after the kernel's first barrier.
    case whole
}

/// A part of the kernel that is switched off to see what it costs.
public enum Ablation: String, Sendable, Equatable, CaseIterable {
    /// Matrix units and the vector work between them take no time.
    case matmul
    /// No expert is computed: no weights, no row loads, no stores.
    case ffn
    /// Rows are not sent.
    case scatter
    /// Results are not sent back.
    case gather
    /// Weights are not read from HBM.
    case weights
    /// The shared expert is skipped.
    case shared
}

/// The switches of a kernel besides its tile.
public struct KernelOptions: Sendable, Equatable {
    /// Who computes the shared expert.
    public var sharedExpert: SharedExpertPlacement
    /// How routing counts are exchanged.
    public var metadata: MetadataExchange
    /// True: only local experts that got rows are visited.
    public var usesActiveList: Bool
    /// When rows are quantised.
    public var prequantization: Prequantization
    /// What is switched off.
    public var ablations: Set<Ablation>

    /// The kernel as the published figures measured it: shared expert inside, butterfly metadata.
    public init(
        sharedExpert: SharedExpertPlacement = .inKernel, metadata: MetadataExchange = .butterfly,
        usesActiveList: Bool = true,
        prequantization: Prequantization = .perTile, ablations: Set<Ablation> = []
    ) {
        self.sharedExpert = sharedExpert
        self.metadata = metadata
        self.usesActiveList = usesActiveList
        self.prequantization = prequantization
        self.ablations = ablations
    }

    /// True when the kernel computes the shared expert of `shape`.
    public func computesShared(_ shape: MoEShape) -> Bool {
        sharedExpert == .inKernel && shape.sharedIntermediate > 0 && !ablations.contains(.shared)
    }

    /// The options themselves when they go with the problem.
    ///
    /// - Throws: `FusedMoEError` with code `.option`.
    public func validated(for problem: MoEProblem, kernel: KernelVersion) throws(FusedMoEError) -> KernelOptions {
        if metadata == .butterfly, problem.devices & (problem.devices - 1) != 0 {
            throw FusedMoEError(
                .option, "the metadata butterfly needs a power of two of devices, ep is \(problem.devices)")
        }
        if kernel == .v1, problem.quantization.tokens.isQuantized {
            throw FusedMoEError(.option, "kernel v1 sends bf16 rows: it has no activation quantisation")
        }
        if kernel == .v1, prequantization == .whole {
            throw FusedMoEError(.option, "kernel v1 quantises no rows: it has no prequantisation")
        }
        if kernel == .v1, !usesActiveList {
            throw FusedMoEError(.option, "kernel v1 has no list of active experts that could be off")
        }
        if sharedExpert == .inKernel, problem.shape.sharedIntermediate == 0 {
            throw FusedMoEError(.option, "there is no shared expert to compute in the kernel: its intermediate is 0")
        }
        return self
    }
}
