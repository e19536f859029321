import Checkpoint
import FusedMoE
import Numerics
import TPU

/// The MoE layers of a checkpoint as calls of kernel V2 on a simulated v7x slice.
public struct LayerSimulation: Sendable {
    /// What decides the time of a call: calls with the same summary take the same picoseconds.
    public struct Summary: Hashable, Sendable {
        /// Rows, rounded up to 1, 2, 3, 4, 6, 8, 12, 16, 24, …
        public let rows: Int
        /// How many times its fair share the busiest expert gets, rounded down to a power of two.
        public let skew: Int

        /// The summary of a call with `rows` rows whose experts get `pairsPerExpert` of them.
        public init(rows: Int, pairsPerExpert: [Int]) {
            var step = 1
            while step < rows, step + step / 2 < rows || step < 2 { step *= 2 }
            self.rows = step >= rows ? step : step + step / 2
            let total = pairsPerExpert.reduce(0, +)
            // Below four rows an expert the busiest one is chance.
            guard total >= 4 * pairsPerExpert.count, let busiest = pairsPerExpert.max() else {
                skew = 1
                return
            }
            var skew = 1
            while 2 * skew * total <= busiest * pairsPerExpert.count { skew *= 2 }
            self.skew = skew
        }

        private init(rows: Int, skew: Int) { (self.rows, self.skew) = (rows, skew) }

        /// A call with as many rows whose experts get the same share.
        var withoutSkew: Summary { Summary(rows: rows, skew: 1) }
    }

    /// What a call takes on the slice: from start to end, and of that the time each engine is busy.
    public struct Time: Sendable, Equatable {
        /// From the first instruction to the end of the last device.
        public private(set) var latency: Picoseconds = 0
        /// The core's units and HBM: mean over devices.
        public private(set) var matrix: Picoseconds = 0, vector: Picoseconds = 0, scalar: Picoseconds = 0
        /// HBM: mean over devices.
        public private(set) var memory: Picoseconds = 0
        /// The busiest link between chips.
        public private(set) var link: Picoseconds = 0

        /// No time.
        init() {}

        init(_ result: SimulationResult) {
            let count = Picoseconds(max(1, result.devices.count))
            func mean(_ time: (SimulationResult.DeviceUse) -> Picoseconds) -> Picoseconds {
                result.devices.reduce(0) { $0 + time($1) } / count
            }
            latency = result.latency
            matrix = mean { $0.busy[.matrix] }
            vector = mean { $0.busy[.vector] }
            scalar = mean { $0.busy[.scalar] }
            memory = mean(\.memoryBusy)
            link = result.busiestLink?.busy ?? 0
        }

        static func += (_ sum: inout Time, _ time: Time) {
            sum.latency &+= time.latency
            sum.matrix &+= time.matrix
            sum.vector &+= time.vector
            sum.scalar &+= time.scalar
            sum.memory &+= time.memory
            sum.link &+= time.link
        }
    }

    let topology: SliceTopology
    let devices: Int
    let shape: MoEShape
    let quantization: Quantization
    let options: KernelOptions

    /// Layers of `configuration` on the named slice; `devices` nil takes the most that divide the experts.
    ///
    /// Widths that the kernel does not accept are rounded up to whole lanes.
    ///
    /// - Throws: `DeviceError` or `FusedMoEError` when the slice does not exist or the experts cannot be spread over it.
    public init(
        configuration c: ModelConfiguration, weights: ElementType, slice: String, devices: Int?,
        tokens: TokenFormat = .bfloat16
    ) throws {
        topology = try SliceTopology(named: slice)
        let most = min(topology.deviceCount, c.expertCount)
        self.devices = devices ?? (1...max(1, most)).last { c.expertCount % $0 == 0 } ?? 1
        let plain = MoEShape(
            hidden: c.hiddenSize, intermediate: c.expertIntermediateSize, experts: c.expertCount,
            topK: c.expertsPerToken, sharedIntermediate: c.sharedIntermediateSize)
        quantization = Quantization(weights: weights, tokens: tokens)
        let isLegal =
            (try? MoEProblem(
                shape: plain, tokens: 1, devices: 1, quantization: quantization
            ).validated()) != nil
        shape = isLegal ? plain : plain.paddedToLanes
        options = KernelOptions(
            sharedExpert: c.sharedIntermediateSize > 0 ? .inKernel : .none, metadata: .direct)
        guard self.devices <= topology.deviceCount else {
            throw FusedMoEError(
                .problem, "--ep is \(self.devices), slice \(slice) has \(topology.deviceCount) devices")
        }
        _ = try problem(rows: 1).validated()
    }

    func problem(rows: Int) -> MoEProblem {
        MoEProblem(shape: shape, tokens: rows, devices: devices, quantization: quantization)
    }

    /// The time of a call: uniform routing, or device 0 drawn `skew` times as often.
    ///
    /// - Throws: `FusedMoEError` when the call cannot be simulated.
    public func time(_ summary: Summary) throws(FusedMoEError) -> Time {
        let problem = problem(rows: summary.rows)
        let pattern = summary.skew == 1 ? RoutingPattern.uniform : .hotspot(ratio: Double(summary.skew))
        let run = try FusedMoE.simulate(
            kernel: .v2, problem: problem, tile: TunedTiles.tile(for: problem, kernel: .v2, options: options),
            options: options, topology: topology, routing: .generated(pattern, for: problem, seed: 0))
        return Time(run.result)
    }
}
