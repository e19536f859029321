import EventLoop
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
                shownFallback: "none; v7x-4 for --mode emulate and --numerics"),
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

    /// What those hand in who start the service with a simulator at hand.
    public struct Simulation: Sendable {
        /// Makes the shard that `--mode emulate` asks for, and says what it is.
        let emulated: @Sendable (OptionValues, UVLoop) throws -> (ExpertsService, String)
        /// Makes the device that `--slice`, `--ep`, `--numerics` and `--tile` ask for.
        let device: @Sendable (OptionValues, ExpertsModel) throws -> any CallDevice

        /// A simulation of these parts.
        public init(
            emulated: @escaping @Sendable (OptionValues, UVLoop) throws -> (ExpertsService, String),
            device: @escaping @Sendable (OptionValues, ExpertsModel) throws -> any CallDevice
        ) {
            (self.emulated, self.device) = (emulated, device)
        }
    }

    /// True when the command line asks for what only a simulator can tell.
    ///
    /// - Throws: `UsageError` for values that cannot be.
    public static func needsSimulator(_ values: OptionValues) throws(UsageError) -> Bool {
        let (isEmulated, numerics) = (try ServiceInputs.isEmulated(values), try values.required("numerics"))
        return isEmulated || values.text("slice") ?? "none" != "none" || numerics != "plain"
    }

    /// Loads the shard, or takes its shape alone, and listens.
    ///
    /// - Throws: `UsageError`, `StartError`, `CheckpointError` or `LoopError` with the sentence to print.
    public static func start(
        _ values: OptionValues, _ loop: UVLoop, simulation: Simulation? = nil
    ) async throws -> ExpertsService {
        try await start(values, emulated: simulation?.emulated) { try computing($0, $1, simulation) }
    }

    private static func computing(
        _ values: OptionValues, _ hot: UVLoop, _ simulation: Simulation?
    ) throws -> (ExpertsService, String) {
        let checkpoint = try ServedCheckpoint.open(values)
        let shard = try shard(values, of: checkpoint.configuration.expertCount)
        let weights = CheckpointFootprint(checkpoint).expertsBytes(shards: shard.count)
        try ServiceInputs.checkMemory([weights], placement: checkpoint.placement)
        let model = try ExpertsModel(
            checkpoint: checkpoint, shard: shard,
            team: ThreadTeam(threadCount: try values.integer("threads", in: 1...256)),
            maximumRows: try values.integer("maximum-rows", in: 1...65536))
        let device =
            try needsSimulator(values) ? try ServiceInputs.required(simulation?.device)(values, model) : nil
        let sentence = "experts \(model.experts) of every MoE layer, \(model.weightByteCount >> 10) KiB of weights"
        let service = ExpertsService(
            model: model, fingerprint: checkpoint.fingerprint, contents: try checkpoint.contents(),
            instanceID: ServiceProcess.instanceID("experts"), loop: hot, device: device)
        return (service, sentence)
    }

    /// What `--shard` and `--shards` ask for.
    ///
    /// - Throws: `UsageError` that says what a shard is.
    public static func shard(_ values: OptionValues, of experts: Int) throws(UsageError) -> ExpertShard {
        let shards = try values.integer("shards", in: 1...experts)
        return ExpertShard(index: try values.integer("shard", in: 0...shards - 1), count: shards)
    }
}
