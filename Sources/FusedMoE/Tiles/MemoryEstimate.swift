import Numerics

/// On-chip memory a tile takes, as the publishers' tuner estimates it before it compiles a kernel (docs/kernels.md#memory-estimate).
public struct MemoryEstimate: Sendable, Equatable {
    /// Vector memory, bytes.
    public let vectorBytes: Int
    /// Scalar memory, bytes.
    public let scalarBytes: Int
    /// Most vector memory the tile may take, bytes.
    public let vectorLimit: Int
    /// What would take less scalar memory.
    private let scalarAdvice: String

    /// Vector memory of a v7x device, bytes.
    public static let vectorCapacity = 64 << 20
    /// Most vector memory a tile of a kernel may take, bytes: V2's tuner leaves a twentieth to the compiler; V1's own
    /// limit is beyond the device's memory, and its published tiles take up to 62 MiB.
    public static func vectorLimit(_ kernel: KernelVersion) -> Int {
        kernel == .v2 ? vectorCapacity / 20 * 19 : vectorCapacity
    }

    /// Scalar memory of a v7x device, bytes.
    public static let scalarLimit = 1 << 20

    /// The memory of an effective tile.
    public init(tile: TileConfiguration, problem: MoEProblem, kernel: KernelVersion, options: KernelOptions) {
        switch kernel {
        case .v1: vectorBytes = Self.v1(tile, problem, options)
        case .v2: vectorBytes = Self.v2(tile, problem)
        }
        vectorLimit = Self.vectorLimit(kernel)
        scalarBytes = Self.scalar(tile, problem, kernel)
        scalarAdvice = Self.scalarAdvice(problem, kernel)
    }

    /// Vector memory in MiB.
    public var vectorMebibytes: Double { Double(vectorBytes) / 1_048_576 }

    /// True when both memories hold the tile.
    public var fits: Bool { vectorBytes <= vectorLimit && scalarBytes <= Self.scalarLimit }

    /// Refuses a tile that does not fit.
    ///
    /// - Throws: `FusedMoEError` with code `.vectorMemory` or `.scalarMemory` that says by how much.
    public func check() throws(FusedMoEError) {
        guard vectorBytes <= vectorLimit else {
            throw FusedMoEError(
                .vectorMemory,
                "the tile needs \(Self.mebibytes(vectorBytes)) MiB of VMEM, the limit is "
                    + "\(Self.mebibytes(vectorLimit)) MiB\(vectorLimit < Self.vectorCapacity ? " (0.95 of 64)" : ""): "
                    + "\(Self.mebibytes(vectorBytes - vectorLimit)) MiB too much",
                neededBytes: vectorBytes)
        }
        guard scalarBytes <= Self.scalarLimit else {
            throw FusedMoEError(
                .scalarMemory,
                "the routing metadata needs \(scalarBytes >> 10) KiB of SMEM, the limit is \(Self.scalarLimit >> 10) "
                    + "KiB: \((scalarBytes - Self.scalarLimit + 1023) >> 10) KiB too much; \(scalarAdvice)",
                neededBytes: scalarBytes)
        }
    }

    /// With two decimals, so that a small excess is not printed as none.
    private static func mebibytes(_ bytes: Int) -> String {
        let hundredths = (bytes * 100 + (1 << 19)) >> 20
        return "\(hundredths / 100).\(hundredths / 10 % 10)\(hundredths % 10)"
    }

    private static func paddedExperts(_ problem: MoEProblem) -> Int { (problem.shape.experts + 127) / 128 * 128 }

    /// The published formula term by term; rows of unquantised fp32 tokens take twice the bytes of bf16 ones.
    private static func v2(_ tile: TileConfiguration, _ problem: MoEProblem) -> Int {
        let shape = problem.shape
        let hidden = shape.hidden
        let element = problem.quantization.tokens.resultRowBytes(hidden: 1)
        let banks = tile.banks(problem, kernel: .v2)
        let gather = 2 * element * shape.topK * TileConfiguration.greatestCommonDivisor(tile.bt, 16) * hidden
        let routing = 8 * banks * tile.bt * 128
        let output = element * banks * tile.bt * hidden
        let weights = 6 * hidden * tile.bf * problem.quantization.weights.byteCount
        var scales = 0
        if problem.quantization.weights == .float8E4M3 {
            let block = problem.quantization.scaleBlock
            scales = 4 * (4 * tile.bf * block.groups(inputs: hidden) + 2 * hidden * block.groups(inputs: tile.bf))
        }
        let staged = 8 * tile.bts * tile.bf + (2 * element + 4) * tile.bts * hidden
        let padded = paddedExperts(problem)
        let metadata = 8 * problem.devices * padded + 4 * tile.bt * 128 + 16 * padded + 1024
        return gather + routing + output + weights + scales + staged + metadata
    }

    /// The buffers of docs/kernels.md#v1; the publishers give no formula.
    private static func v1(_ tile: TileConfiguration, _ problem: MoEProblem, _ options: KernelOptions) -> Int {
        let hidden = problem.shape.hidden
        let element = problem.quantization.tokens.resultRowBytes(hidden: 1)
        let weight = problem.quantization.weights.byteCount
        let rows = (tile.bt * problem.devices + tile.bts - 1) / tile.bts * tile.bts
        let weights = (4 * tile.bd1 + 2 * tile.bd2) * tile.bf * weight
        let intermediates = 8 * rows * tile.bf
        let stages = element * tile.bts * (2 * tile.bd1 + 3 * tile.bd2)
        let gather = 2 * element * problem.shape.topK * TileConfiguration.greatestCommonDivisor(tile.bt, 16) * hidden
        let output = 2 * element * tile.bt * hidden
        let routing = 2 * 2 * 4 * tile.bt * 128 + 8 * problem.devices * paddedExperts(problem)
        var shared = 0
        if options.computesShared(problem.shape) {
            shared =
                4 * element * tile.bt * tile.bd1 + (4 * tile.bd1 + 2 * tile.bd2) * tile.bse * weight
                + 8 * tile.bt * hidden
        }
        return weights + intermediates + stages + gather + output + routing + shared
    }

    /// V2 keeps the ids of all tokens of a device, whatever its tile; V1 those of two tiles.
    private static func scalarAdvice(_ problem: MoEProblem, _ kernel: KernelVersion) -> String {
        let rows = problem.rowsPerDevice(kernel)
        switch kernel {
        case .v1: return "a smaller bt takes less"
        case .v2 where 4 * 128 * rows >= scalarLimit:
            return "the ids of \(rows) tokens per device alone take \(4 * 128 * rows >> 10) KiB, whatever the tile is: "
                + "fewer tokens or more devices take less"
        case .v2: return "a larger bt has fewer banks"
        }
    }

    /// Routing ids, counts of every device, cursors, starts, sizes and the active list (docs/kernels.md#buffers).
    private static func scalar(_ tile: TileConfiguration, _ problem: MoEProblem, _ kernel: KernelVersion) -> Int {
        let banks = tile.banks(problem, kernel: kernel)
        let experts = problem.shape.experts
        let words = tile.bt * 128 + problem.devices * experts + 4 * experts + 2 * problem.expertsPerDevice + 1
        return 4 * banks * words
    }
}
