import FusedMoE
import TPU

/// Times of the fused MoE kernel by token count, each simulated once when it is first asked for.
///
/// Token counts are those a serving engine compiles programs for (`RankWork.padded` rows on every rank), so that a whole
/// deployment needs about fifteen of them.
struct KernelTimes: Sendable {
    private let kernel: KernelVersion
    private let shape: MoEShape
    private let devices: Int
    private let options: KernelOptions
    private let quantization: Quantization
    private let topology: SliceTopology
    private let parameters: DeviceParameters
    private let seed: UInt64
    private var known: [Int: Picoseconds] = [:]

    init(
        kernel: KernelVersion, shape: MoEShape, devices: Int, options: KernelOptions, topology: SliceTopology,
        parameters: DeviceParameters, seed: UInt64
    ) {
        self.kernel = kernel
        self.shape = shape
        self.devices = devices
        self.options = options
        quantization = kernel == .v2 ? .publishedFloat8 : .weightsOnly
        self.topology = topology
        self.parameters = parameters
        self.seed = seed
    }

    /// The call with this many tokens over all devices, with its fastest known tile.
    ///
    /// - Throws: `DeploymentError` with code `.kernel`.
    func call(tokens: Int, overrides: TileOverrides = .init()) throws(DeploymentError) -> KernelCall {
        do {
            return try KernelCall(
                kernel: kernel,
                problem: MoEProblem(shape: shape, tokens: tokens, devices: devices, quantization: quantization),
                overrides: overrides, options: options, topology: topology, parameters: parameters, seed: seed)
        } catch { throw DeploymentError(.kernel, "the fused kernel refuses \(tokens) tokens: \(error)") }
    }

    /// Time of a call.
    ///
    /// A call was checked when the deployment was made, so it runs; should the device refuse it all the same, the time of
    /// reading its weights once stands for it.
    mutating func time(tokens: Int) -> Picoseconds {
        guard tokens > 0 else { return 0 }
        if let time = known[tokens] { return time }
        var best: Picoseconds?
        for overrides in tiles(tokens: tokens) {
            guard let latency = try? call(tokens: tokens, overrides: overrides).run().latency else { continue }
            best = min(best ?? latency, latency)
        }
        let weights = Double(shape.experts / devices * shape.expertParameters)
        let time = best ?? Picoseconds(weights / parameters[.memoryRate] * 1e3)
        known[tokens] = time
        return time
    }

    /// The tuned tile, or where nobody tuned (another number of devices), also the published tile for as many rows per
    /// device: whoever deploys tunes.
    private func tiles(tokens: Int) -> [TileOverrides] {
        guard kernel == .v2, devices != Self.tunedDevices else { return [TileOverrides()] }
        let alike = MoEProblem(
            shape: shape, tokens: tokens * Self.tunedDevices / devices, devices: Self.tunedDevices,
            quantization: quantization)
        guard let tile = try? TunedTiles.tile(for: alike, kernel: kernel, options: options),
            let overrides = try? TileOverrides(parsing: tile.description)
        else { return [TileOverrides()] }
        return [TileOverrides(), overrides]
    }

    private static let tunedDevices = 32
}
