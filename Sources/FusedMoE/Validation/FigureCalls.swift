import Numerics
import TPU

/// The simulated calls behind the published figures, each run once.
///
/// All are Ling-2.6-1T on 32 devices of a v7x-16 slice with random routing, as published (docs/kernels.md#published-figures).
public final class FigureCalls {
    /// One set-up.
    struct Setup: Hashable {
        var kernel = KernelVersion.v2
        var tokens = 16384
        var isQuantized = true
        var isShared = false
        var tile = ""
        var metadata = MetadataExchange.butterfly
        var prequantization = Prequantization.perTile
        var ablations: Set<Ablation> = []

        static let prefill = Setup()
        static let decode = Setup(tokens: 512)
        static let slicedPrefill = Setup(kernel: .v1, isQuantized: false, isShared: true)
    }

    /// The device's numbers.
    public let parameters: DeviceParameters
    private let wraps: Bool?
    private let seed: UInt64
    private var runs: [Setup: KernelRun] = [:]

    /// Calls with these parameters; `wraps` closes or opens the slice's rings against its default, `seed` is the routing's.
    public init(parameters: DeviceParameters, wraps: Bool? = nil, seed: UInt64 = 0) {
        self.parameters = parameters
        self.wraps = wraps
        self.seed = seed
    }

    func topology() throws(FusedMoEError) -> SliceTopology {
        do {
            return try SliceTopology(named: "v7x-16", wraps: wraps)
        } catch { throw FusedMoEError(.device, error.description) }
    }

    func call(_ setup: Setup) throws(FusedMoEError) -> KernelCall {
        try KernelCall(
            kernel: setup.kernel,
            problem: MoEProblem(
                shape: .ling1T, tokens: setup.tokens, devices: 32,
                quantization: setup.isQuantized ? .publishedFloat8 : .weightsOnly),
            overrides: setup.tile.isEmpty ? TileOverrides() : TileOverrides(parsing: setup.tile),
            options: KernelOptions(
                sharedExpert: setup.isShared ? .inKernel : .none, metadata: setup.metadata,
                prequantization: setup.prequantization, ablations: setup.ablations),
            topology: topology(), parameters: parameters, seed: seed)
    }

    func run(_ setup: Setup) throws(FusedMoEError) -> KernelRun {
        if let run = runs[setup] { return run }
        let run = try call(setup).run()
        runs[setup] = run
        return run
    }

    /// A stand-alone all-to-all of the routed rows of 16,384 tokens, `valueBytes` per value: ms.
    func allToAll(valueBytes: Int) throws(FusedMoEError) -> Double {
        let run = try FusedMoE.allToAll(
            rowsPerDevice: 4096, rowBytes: 8192 * valueBytes, topology: topology(), devices: 32, parameters: parameters)
        return Double(run.latency) * 1e-9
    }

    func milliseconds(_ setup: Setup) throws(FusedMoEError) -> Double {
        Double(try run(setup).result.latency) * 1e-9
    }

    func milliseconds(
        _ setup: Setup, _ part: (KernelRun) -> Picoseconds
    ) throws(FusedMoEError) -> Double {
        Double(part(try run(setup))) * 1e-9
    }
}

extension FigureCalls.Setup {
    func with(_ change: (inout Self) -> Void) -> Self {
        var copy = self
        change(&copy)
        return copy
    }
}
