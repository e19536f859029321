import EventLoop
import HybridModel
import Numerics
import ServiceSupport

/// How the executable makes the service from its command line.
extension SamplerService {
    /// Its command line.
    public static let options = CommandLineOptions(
        program: "ironling-sampler",
        summary: "Holds the final norm and the output head: hidden rows in, tokens and logprobs out.",
        options: ServiceProcess.commonOptions + [
            CommandLineOption("port", value: "PORT", help: "TCP port to listen on", fallback: "7003"),
            CommandLineOption("maximum-rows", value: "N", help: "rows one call may have", fallback: "256"),
        ])

    /// Loads the head, or takes the sampler that `emulation` makes and describes, and listens.
    ///
    /// - Throws: `UsageError`, `StartError`, `CheckpointError` or `LoopError` with the sentence to print.
    public static func start(
        _ values: OptionValues, _ loop: UVLoop,
        emulation: ((OptionValues, UVLoop) throws -> (SamplerService, String))? = nil
    ) async throws -> SamplerService {
        try await start(values, emulated: emulation, computing: computing)
    }

    private static func computing(_ values: OptionValues, _ hot: UVLoop) throws -> (SamplerService, String) {
        let checkpoint = try ServedCheckpoint.open(values)
        try ServiceInputs.checkMemory(
            [CheckpointFootprint(checkpoint).bytes.sampler], placement: checkpoint.placement)
        let model = try HeadModel(
            checkpoint: checkpoint, team: ThreadTeam(threadCount: try values.integer("threads", in: 1...256)),
            maximumRows: try values.integer("maximum-rows", in: 1...4096))
        let service = SamplerService(
            model: model, fingerprint: checkpoint.fingerprint, contents: try checkpoint.contents(),
            instanceID: ServiceProcess.instanceID("sampler"), loop: hot)
        return (service, "\(model.weightByteCount >> 10) KiB of weights")
    }
}
