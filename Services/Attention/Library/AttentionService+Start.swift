import Checkpoint
import ContentIdentity
import EventLoop
import Foundation
import HybridModel
import Numerics
import Observability
import RPC
import Scheduling
import ServiceSupport
import Serving

/// How the executable makes the service from its command line.
extension AttentionService {
    /// Its command line.
    public static let options = CommandLineOptions(
        program: "ironling-attention",
        summary: "Runs both kinds of attention, owns KV pages and recurrent states, and drives experts and sampler.",
        options: ServiceProcess.commonOptions + [
            CommandLineOption("port", value: "PORT", help: "TCP port to listen on", fallback: "7001"),
            CommandLineOption(
                "experts", value: "HOST:PORT,…",
                help: "experts processes in shard order; a name stands for all replicas it resolves to"),
            CommandLineOption(
                "sampler", value: "HOST:PORT", help: "sampler process, or a name that resolves to several"),
            ServiceProcess.peerWaitOption,
            CommandLineOption(
                "role", value: "ROLE", help: "prefill, decode or both: the part of a request it takes",
                fallback: "both", choices: ["prefill", "decode", "both"]),
            CommandLineOption(
                "dp-rank", value: "N",
                help: "data-parallel rank, or the first of an emulated slice's, for pools and metrics", fallback: "0"),
            CommandLineOption(
                "lease", value: "SECONDS", help: "silence after which a prefill instance is given up", fallback: "5"),
            CommandLineOption(
                "slots", value: "N", help: "requests that run at once", shownFallback: ComputedDefaults.shownSlots),
            CommandLineOption(
                "kv-tokens", value: "N", help: "tokens of KV memory", shownFallback: ComputedDefaults.shownTokens),
        ] + StateBudget.options + [
            PrefixCacheOption.option,
            CommandLineOption(
                "prefill-chunk", value: "N",
                help: "prompt tokens per step, a multiple of 64", shownFallback: ComputedDefaults.shownChunk),
            CommandLineOption("queue", value: "N", help: "requests that may wait for memory", fallback: "1024"),
        ] + EmulationOptions.options + EmulationOptions.pacing)

    /// Makes what `--mode emulate` asks for, whose steps run on the given loop, and says what that is.
    public typealias Emulation = (OptionValues, any Loop, Logger) throws -> (PacedInstance, String)

    /// Loads the weights, or takes the shape and the pace of `emulation`, connects to experts and sampler, and listens.
    ///
    /// - Throws: `UsageError`, `StartError`, `CheckpointError` or `LoopError` with the sentence to print.
    public static func start(
        _ values: OptionValues, _ loop: UVLoop, emulation: Emulation? = nil
    ) async throws -> AttentionService {
        let hot = UVLoop()
        hot.start()
        let values = try ServiceProcess.hold(["port"], values, on: loop)
        let (service, sentence) =
            try ServiceInputs.isEmulated(values)
            ? try emulated(values, try ServiceInputs.required(emulation), loop, hot)
            : try computing(values, loop, hot)
        try await ServiceProcess.waitForPeers(values, service: service.name, loop: loop) {
            await service.waiting()
        } connect: {
            try await service.connect(timeoutMicroseconds: $0)
        }
        let port = try service.listen(
            host: try values.host(), port: try values.integer("port", in: 0...65535))
        ServiceProcess.announce(service, port: port, sentence)
        return service
    }

    private static func computing(
        _ values: OptionValues, _ loop: UVLoop, _ hot: UVLoop
    ) throws -> (AttentionService, String) {
        let checkpoint = try ServedCheckpoint.open(values)
        let weights = CheckpointFootprint(checkpoint).bytes.attention
        try ServiceInputs.checkMemory([weights], placement: checkpoint.placement)
        let sizes = ComputedDefaults.applied(to: values)
        let chunk = try sizes.integer("prefill-chunk", in: 64...16384)
        guard chunk % 64 == 0 else { throw UsageError("--prefill-chunk must be a multiple of 64, not \(chunk)") }
        let capacity = try StateBudget.capacity(sizes, of: checkpoint.configuration)
        let running = min(try sizes.integer("slots", in: 1...4096), capacity.requests)
        var limits = SchedulerLimits(
            rowsPerStep: chunk + running, prefillChunk: chunk, running: running,
            waiting: try values.integer("queue", in: 0...65536))
        limits.expectedTokens = SchedulerLimits.servedExpectedTokens
        try PrefixCacheOption(values).apply(
            to: &limits, bytesPerRequest: CheckpointFootprint(checkpoint).bytesPerRequest)
        let team = ThreadTeam(threadCount: try values.integer("threads", in: 1...256))
        let model = try AttentionModel(checkpoint: checkpoint, team: team, maximumRows: limits.rowsPerStep)
        let state = try StateMemory(
            configuration: checkpoint.configuration, slotCount: capacity.requests + limits.snapshots + 1,
            pageCount: capacity.tokens / StateMemory.pageTokens + 1)
        let logger = try ServiceProcess.logger(values, service: "attention")
        let sentence = "\(model.weightByteCount >> 10) KiB of weights, state memory for \(capacity)"
        let service = AttentionService(
            model: model, state: state, limits: limits,
            identity: identity(checkpoint.fingerprint, try checkpoint.contents()),
            experts: try values.addresses("experts"), sampler: try values.addresses("sampler")[0],
            secret: try ServiceProcess.secret(values), role: try role(values),
            dpRank: try values.integer("dp-rank", in: 0...65535),
            leaseMicroseconds: UInt64(try values.integer("lease", in: 1...600)) * 1_000_000, loop: loop, hot: hot,
            logger: logger,
            onRecord: { logger.info("transfer", ["record": LogValue(describing: $0)]) },
            onChange: { logger.info("replicas", ["of": .string($0), "change": LogValue(describing: $1)]) })
        try ServiceProcess.logMemory(values, service: "attention", service.memory)
        return (service, sentence)
    }

    private static func emulated(
        _ values: OptionValues, _ emulation: Emulation, _ loop: UVLoop, _ hot: UVLoop
    ) throws -> (AttentionService, String) {
        guard values.text("prefix-cache") ?? "off" == "off" else {
            throw UsageError("--prefix-cache keeps real states; an emulated instance has none")
        }
        let logger = try ServiceProcess.logger(values, service: "attention")
        let (instance, sentence) = try emulation(values, hot, logger)
        let service = AttentionService(
            instance, identity: identity(instance.fingerprint), experts: try values.addresses("experts"),
            sampler: try values.addresses("sampler")[0], secret: try ServiceProcess.secret(values),
            role: try role(values), firstRank: try values.integer("dp-rank", in: 0...65535),
            leaseMicroseconds: UInt64(try values.integer("lease", in: 1...600)) * 1_000_000, loop: loop, hot: hot,
            logger: logger,
            onRecord: { logger.info("transfer", ["record": LogValue(describing: $0)]) },
            onChange: { logger.info("replicas", ["of": .string($0), "change": LogValue(describing: $1)]) })
        return (service, sentence)
    }

    private static func identity(_ fingerprint: String, _ contents: ContentManifest? = nil) -> PeerIdentity {
        PeerIdentity(
            role: "attention", instanceID: ServiceProcess.instanceID("attention"),
            generation: UInt64(Date().timeIntervalSince1970 * 1_000_000), fingerprint: fingerprint,
            contents: contents)
    }

    private static func role(_ values: OptionValues) throws(UsageError) -> Part {
        let name = try values.required("role")
        guard let role = Part(rawValue: name) else {
            throw UsageError("--role is prefill, decode or both, not \"\(name)\"")
        }
        return role
    }
}
