import Emulation
import EventLoop
import FusedMoE
import HybridModel
import Numerics
import ServiceSupport

/// How the executable makes the service from its command line.
extension ExpertsService {
    /// Its command line.
    public static let options = CommandLineOptions(
        program: "ironling-experts",
        summary: "Holds the routed experts of one shard and the shared expert, and answers MoE layers.",
        options: ServiceProcess.commonOptions + [
            CommandLineOption("port", value: "PORT", help: "TCP port to listen on", fallback: "7002"),
            CommandLineOption("shard", value: "I", help: "which shard this process is, from 0", fallback: "0"),
            CommandLineOption("shards", value: "N", help: "processes that share the experts", fallback: "1"),
            CommandLineOption("maximum-rows", value: "N", help: "rows one call may have", fallback: "1024"),
            CommandLineOption(
                "slice", value: "NAME", help: "simulated slice that calls are timed on: v7x-4, -8, -16, -64 or none",
                fallback: "v7x-4"),
            CommandLineOption(
                "ep", value: "N", help: "devices of the slice that share the experts; 0: as many as divide them",
                fallback: "0"),
            CommandLineOption(
                "numerics", value: "KIND",
                help: "plain; or the published kernel's: bf16, faithful (fp8 rows) or lossless, computed on the device",
                fallback: "plain", choices: ["plain", "bf16", "faithful", "lossless"]),
            CommandLineOption(
                "tile", value: "SIZES", help: "bt=…,bf=…,bts=…,btc=…,bse=… of the kernel's numerics; the rest is tuned"),
        ])

    /// Loads the shard, or takes its shape alone, and listens.
    public static func start(_ values: OptionValues, _ loop: UVLoop) async throws -> ExpertsService {
        try await start(values, emulated: emulated, computing: computing)
    }

    private static func computing(_ values: OptionValues, _ hot: UVLoop) throws -> (ExpertsService, String) {
        let checkpoint = try ServedCheckpoint.open(values)
        let shard = try shard(values, of: checkpoint.configuration.expertCount)
        let weights = CheckpointFootprint(checkpoint).expertsBytes(shards: shard.count)
        try ServiceInputs.checkMemory([weights], placement: checkpoint.placement)
        let model = try ExpertsModel(
            checkpoint: checkpoint, shard: shard,
            team: ThreadTeam(threadCount: try values.integer("threads", in: 1...256)),
            maximumRows: try values.integer("maximum-rows", in: 1...65536))
        let service = ExpertsService(
            compute: try simulatedCompute(values, model, hot), model: model, fingerprint: checkpoint.fingerprint,
            contents: try checkpoint.contents(), instanceID: ServiceProcess.instanceID("experts"), loop: hot)
        return (
            service,
            "experts \(model.experts) of every MoE layer, \(model.weightByteCount >> 10) KiB of weights"
        )
    }

    private static func emulated(_ values: OptionValues, _ hot: UVLoop) throws -> (ExpertsService, String) {
        let model = try EmulatedModel(try values.required("model"))
        let shard = try shard(values, of: model.configuration.expertCount)
        let slice = try values.required("slice")
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

    /// What `--shard` and `--shards` ask for.
    private static func shard(_ values: OptionValues, of experts: Int) throws(UsageError) -> ExpertShard {
        let shards = try values.integer("shards", in: 1...experts)
        return ExpertShard(index: try values.integer("shard", in: 0...shards - 1), count: shards)
    }

    /// What `--slice`, `--ep`, `--numerics` and `--tile` ask for.
    private static func simulatedCompute(
        _ values: OptionValues, _ model: ExpertsModel, _ hot: any Loop
    ) throws -> ExpertsCompute {
        let slice = try values.required("slice")
        let numerics = try values.required("numerics")
        let formats: [String: TokenFormat] = [
            "plain": .bfloat16, "bf16": .bfloat16, "faithful": .float8(.faithful), "lossless": .float8(.lossless),
        ]
        guard let format = formats[numerics] else {
            throw UsageError("--numerics takes plain, bf16, faithful or lossless, not \"\(numerics)\"")
        }
        guard slice != "none" else {
            guard numerics == "plain" else { throw UsageError("--numerics \(numerics) needs a --slice") }
            return ExpertsCompute(loop: hot, model: model, times: nil, kernel: nil)
        }
        let devices = try values.integer("ep", in: 0...1024)
        do {
            let simulation = try LayerSimulation(
                configuration: model.configuration, weights: model.weightType, slice: slice,
                devices: devices == 0 ? nil : devices, tokens: format)
            let overrides = try values.text("tile").map { try TileOverrides(parsing: $0) } ?? TileOverrides()
            let kernel = numerics == "plain" ? nil : try KernelExecution(simulation, overrides: overrides, model: model)
            let times = SimulatedTimes(simulation)
            if kernel == nil { times.prepare(rows: model.maximumRows) }
            return ExpertsCompute(loop: hot, model: model, times: times, kernel: kernel)
        } catch {
            throw UsageError("--slice, --ep, --numerics, --tile: \(error)")
        }
    }
}
