import EventLoop
import ExpertsService
import FusedMoE
import HybridModel
import ServiceSupport

extension ServiceEmulation {
    /// Emulated shards, and simulated devices for real ones.
    public static let experts = ExpertsService.Simulation(emulated: emulatedExperts, device: device)

    private static let formats: [String: TokenFormat] = [
        "plain": .bfloat16, "bf16": .bfloat16, "faithful": .float8(.faithful), "lossless": .float8(.lossless),
    ]

    private static func emulatedExperts(_ values: OptionValues, _ hot: UVLoop) throws -> (ExpertsService, String) {
        let model = try EmulatedModel(try values.required("model"))
        let shard = try ExpertsService.shard(values, of: model.configuration.expertCount)
        let slice = values.text("slice") ?? defaultSlice
        let devices = try values.integer("ep", in: 0...1024)
        var times: SimulatedTimes?
        do {
            times =
                slice == "none"
                ? nil
                : SimulatedTimes(
                    try LayerSimulation(
                        configuration: model.configuration, weights: .float8E4M3, slice: slice,
                        devices: devices == 0 ? nil : devices))
        } catch { throw UsageError("--slice, --ep: \(error)") }
        let service = ExpertsService(
            emulating: model, shard: shard, instanceID: ServiceProcess.instanceID("experts"), loop: hot, times: times)
        return (service, "emulating shard \(shard.index) of \(shard.count) of \(model.name)")
    }

    private static func device(_ values: OptionValues, _ model: ExpertsModel) throws -> any CallDevice {
        let slice = values.text("slice") ?? defaultSlice
        let numerics = try values.required("numerics")
        guard let format = formats[numerics] else {
            throw UsageError("--numerics takes plain, bf16, faithful or lossless, not \"\(numerics)\"")
        }
        guard slice != "none" else { throw UsageError("--numerics \(numerics) needs a --slice") }
        let devices = try values.integer("ep", in: 0...1024)
        do {
            let simulation = try LayerSimulation(
                configuration: model.configuration, weights: model.weightType, slice: slice,
                devices: devices == 0 ? nil : devices, tokens: format)
            let overrides = try values.text("tile").map { try TileOverrides(parsing: $0) } ?? TileOverrides()
            let times = SimulatedTimes(simulation)
            guard numerics != "plain" else {
                times.prepare(rows: model.maximumRows)
                return SimulatedCalls(times: times, kernel: nil)
            }
            let kernel = try KernelExecution(simulation, overrides: overrides, model: model, times: times)
            return SimulatedCalls(times: times, kernel: kernel)
        } catch {
            throw UsageError("--slice, --ep, --numerics, --tile: \(error)")
        }
    }

    private static let defaultSlice = "v7x-4"
}

/// The device that a real shard's calls are timed on, or run on.
private struct SimulatedCalls: CallDevice {
    let times: SimulatedTimes
    let kernel: (any CallKernel)?

    var counters: [String: Int64] { times.counters }

    func picoseconds(rows: Int, pairsPerExpert: [Int], kernelNanoseconds: Int64) -> UInt64 {
        let summary = LayerSimulation.Summary(rows: rows, pairsPerExpert: pairsPerExpert)
        return UInt64(times.time(summary, kernelNanoseconds: kernelNanoseconds) ?? 0)
    }
}
