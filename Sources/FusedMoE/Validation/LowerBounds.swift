import Numerics
import TPU

/// What no kernel can be faster than on a device, by arithmetic alone (docs/kernels.md#published-figures). All times are ms.
public struct LowerBounds: Sendable, Equatable {
    /// The shared expert on all rows the routed experts get, as the blog printed it.
    public let computeAsPrinted: Double
    /// The shared expert on the device's own rows.
    public let compute: Double
    /// The weights of the device's experts that get rows, read once.
    public let weightsOnce: Double
    /// The same, read once per outer token tile in which they get rows.
    public let weightsPerTile: Double
    /// All rows there and back over the busiest link, uniform routing.
    public let interconnect: Double

    /// One-way rate of an inter-chip link that the data sheet gives, bytes per second.
    static let linkRate = 100e9
    /// Peak of one device, FLOP per second: fp8 and bf16.
    static let peak = (float8: 2307e12, bfloat16: 1153.5e12)
    /// Peak of one device's HBM, bytes per second.
    public static let memoryRate = 3690e9

    /// The bounds of a call, those of weights for the routing it is simulated with.
    ///
    /// - Throws: `FusedMoEError` when the problem is not valid.
    public init(_ call: KernelCall) throws(FusedMoEError) {
        let (problem, shape) = (call.problem, call.problem.shape)
        let devices = Double(problem.devices)
        let isShared = call.options.computesShared(shape)
        let rows = Double(problem.tokens) * Double(shape.topK) / devices
        let routed = 6 * rows * Double(shape.hidden) * Double(shape.intermediate)
        let perRow = isShared ? 6 * Double(shape.hidden) * Double(shape.sharedIntermediate) : 0
        let peak = problem.quantization.tokens.isQuantized ? Self.peak.float8 : Self.peak.bfloat16
        compute = (routed + perRow * Double(problem.tokens) / devices) / peak * 1e3
        computeAsPrinted = (routed + perRow * rows) / peak * 1e3
        let expert = Double(shape.expertParameters * problem.quantization.weights.byteCount) / Self.memoryRate * 1e3
        let visits = try Self.expertVisits(call)
        weightsOnce = Double(visits.once) * expert
        weightsPerTile = Double(visits.perTile) * expert
        let tokens = problem.quantization.tokens
        let row = Double(tokens.rowBytes(hidden: shape.hidden) + tokens.resultRowBytes(hidden: shape.hidden))
        let load = Self.busiestLinkLoad(call.topology, devices: problem.devices)
        interconnect = rows * row * load / Self.linkRate * 1e3
    }

    /// Experts of the device that has most of them to read: those with rows at all, and with rows in each tile, added up.
    private static func expertVisits(_ call: KernelCall) throws(FusedMoEError) -> (once: Int, perTile: Int) {
        let problem = call.problem
        let tiles = try RoutingTable.generated(call.routing, for: problem, seed: call.seed)
            .counts(problem, kernel: call.kernel, bt: call.tile.bt)
        var most = (once: 0, perTile: 0)
        for device in 0..<problem.devices {
            let active = tiles.map { $0.activeExperts(device: device) }
            most.once = max(most.once, Set(active.joined()).count)
            most.perTile = max(most.perTile, active.reduce(0) { $0 + $1.count })
        }
        return most
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
