import Numerics
import TPU

/// What no kernel can be faster than on a device, by arithmetic alone (spec sections 0 and 7.5). All times are ms.
public struct LowerBounds: Sendable, Equatable {
    /// The shared expert on all rows the routed experts get, as the blog printed it.
    public let computeAsPrinted: Double
    /// The shared expert on the device's own rows.
    public let compute: Double
    /// The routed weights read once.
    public let weightsOnce: Double
    /// The routed weights read once per outer token tile.
    public let weightsPerTile: Double
    /// All rows there and back over the busiest link, uniform routing.
    public let interconnect: Double

    /// One-way rate of an inter-chip link that the data sheet gives, bytes per second.
    static let linkRate = 100e9
    /// Peak of one device, FLOP per second: fp8 and bf16.
    static let peak = (float8: 2307e12, bfloat16: 1153.5e12)
    /// Peak of one device's HBM, bytes per second.
    static let memoryRate = 3690e9

    /// The bounds of a call.
    public init(_ call: KernelCall) {
        let (problem, shape) = (call.problem, call.problem.shape)
        let devices = Double(problem.devices)
        let isShared = call.options.computesShared(shape)
        let rows = Double(problem.tokens) * Double(shape.topK) / devices
        let routed = 6 * rows * Double(shape.hidden) * Double(shape.intermediate)
        let perRow = isShared ? 6 * Double(shape.hidden) * Double(shape.sharedIntermediate) : 0
        let peak = problem.quantization.tokens.isQuantized ? Self.peak.float8 : Self.peak.bfloat16
        compute = (routed + perRow * Double(problem.tokens) / devices) / peak * 1e3
        computeAsPrinted = (routed + perRow * rows) / peak * 1e3
        let bytes = Double(problem.expertsPerDevice * shape.expertParameters * problem.quantization.weights.byteCount)
        weightsOnce = bytes / Self.memoryRate * 1e3
        weightsPerTile = weightsOnce * Double(call.tile.tokenTiles(problem, kernel: call.kernel))
        let tokens = problem.quantization.tokens
        let row = Double(tokens.rowBytes(hidden: shape.hidden) + tokens.resultRowBytes(hidden: shape.hidden))
        let load = Self.busiestLinkLoad(call.topology, devices: problem.devices)
        interconnect = rows * row * load / Self.linkRate * 1e3
    }

    /// Load of the busiest link of a uniform all-to-all, in units of what one device sends, its own share included.
    public static func busiestLinkLoad(_ topology: SliceTopology, devices: Int) -> Double {
        linkLoads(topology, devices: devices).max() ?? 0
    }

    /// Load of every directed link, six per chip.
    static func linkLoads(_ topology: SliceTopology, devices: Int) -> [Double] {
        var pairs = [Int](repeating: 0, count: topology.linkCount)
        for source in 0..<devices {
            for target in 0..<devices {
                for link in topology.route(fromChip: source / 2, toChip: target / 2) { pairs[link] += 1 }
            }
        }
        return pairs.map { Double($0) / Double(devices) }
    }
}
