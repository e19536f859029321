import ExpertsService
import FusedMoE
import HybridModel
import Numerics
import TPU

/// Answers calls by running kernel V2 with the real tensors on the simulated device, in the kernel's own numerics: what
/// the published kernel would have answered. Slower than the service's plain arithmetic; for comparing, not for serving.
struct KernelExecution: CallKernel {
    let simulation: LayerSimulation
    let overrides: TileOverrides
    /// Counts the calls.
    let times: SimulatedTimes

    /// - Throws: `FusedMoEError` when the layer's widths are not whole lanes: nothing is padded here.
    init(
        _ simulation: LayerSimulation, overrides: TileOverrides, model: ExpertsModel, times: SimulatedTimes
    ) throws(FusedMoEError) {
        let c = model.configuration
        guard model.shard.count == 1 else {
            throw FusedMoEError(
                .option, "a kernel's numerics need all experts in one process, not \(model.shard.count)")
        }
        guard simulation.shape.hidden == c.hiddenSize, simulation.shape.intermediate == c.expertIntermediateSize,
            simulation.shape.sharedIntermediate == c.sharedIntermediateSize
        else {
            throw FusedMoEError(
                .problem,
                "hidden \(c.hiddenSize) and intermediates \(c.expertIntermediateSize) and \(c.sharedIntermediateSize) "
                    + "are not whole lanes of the kernel")
        }
        self.simulation = simulation
        self.overrides = overrides
        self.times = times
    }

    func run(
        _ model: ExpertsModel, layer: Int, rows: UnsafePointer<Float>, rowCount: Int, experts: UnsafePointer<Int32>,
        weights: UnsafePointer<Float>, into out: UnsafeMutablePointer<Float>
    ) throws -> UInt64 {
        let topK = simulation.shape.topK
        let problem = simulation.problem(rows: rowCount)
        guard let matrices = model.matrices(layer: layer) else {
            throw FusedMoEError(.problem, "layer \(layer) has no experts")
        }
        let pairs = rowCount * topK
        let routing = try RoutingTable(
            tokens: rowCount, topK: topK, experts: simulation.shape.experts,
            expertIDs: Array(UnsafeBufferPointer(start: experts, count: pairs)),
            weights: Array(UnsafeBufferPointer(start: weights, count: pairs)))
        let tensors = MoETensors(
            tokens: rows, experts: matrices.routed.map(Self.expert), shared: matrices.shared.map(Self.expert))
        let run = try FusedMoE.simulate(
            kernel: .v2, problem: problem,
            tile: TunedTiles.tile(for: problem, kernel: .v2, options: simulation.options, overrides: overrides),
            options: simulation.options, topology: simulation.topology, routing: routing, tensors: tensors)
        for (index, value) in (run.output ?? []).enumerated() { out[index] = value }
        let time = LayerSimulation.Time(run.result)
        times.count(time)
        return UInt64(time.latency)
    }

    private static func expert(_ matrices: ExpertsModel.Matrices) -> ExpertMatrices {
        ExpertMatrices(gate: matrices.gate, up: matrices.up, down: matrices.down)
    }
}
