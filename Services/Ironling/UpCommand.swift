import AttentionService
import Checkpoint
import DeploymentModel
import Emulation
import EventLoop
import Foundation
import GatewayService
import ServiceSupport
import ServingSimulator

/// `ironling up`: all services on loopback until a signal.
enum UpCommand {
    static let options = CommandLineOptions(
        program: "ironling up", summary: "Starts gateway, attention, experts and sampler, and keeps them running.",
        options: [
            CommandLineOption("model", value: "DIR", help: "checkpoint folder; emulated, also a model's name"),
            ServiceProcess.modeOption,
            CommandLineOption("http-port", value: "PORT", help: "HTTP port of the gateway", fallback: "8000"),
            CommandLineOption("rpc-port", value: "PORT", help: "binary port of the gateway", fallback: "7000"),
            CommandLineOption(
                "host", value: "ADDRESS", help: "address or name the gateway listens on; 0.0.0.0 or :: for all",
                fallback: "127.0.0.1"),
            CommandLineOption("experts", value: "N", help: "experts processes", fallback: "1"),
            CommandLineOption(
                "attention", value: "N",
                help: "attention instances that compute prompts and decode", shownFallback: "1, or 0 with --prefill"),
            CommandLineOption("prefill", value: "N", help: "attention instances that compute prompts", fallback: "0"),
            CommandLineOption("decode", value: "N", help: "attention instances that decode", fallback: "0"),
            CommandLineOption(
                "prefill-chunk", value: "N", help: "prompt tokens per step", shownFallback: ComputedDefaults.shownChunk),
            CommandLineOption(
                "slots", value: "N",
                help: "requests an attention instance runs at once", shownFallback: ComputedDefaults.shownSlots),
            CommandLineOption(
                "kv-tokens", value: "N",
                help: "tokens of KV memory per instance", shownFallback: ComputedDefaults.shownTokens),
        ] + attentionOptions + [
            CommandLineOption(
                "client-secret-file", value: "FILE", help: "file with the secret that clients of the binary port share",
                guards: true),
            CommandLineOption(
                "metrics-port", value: "PORT",
                help:
                    "first of the ports of /metrics, /trace, /debug/requests of sampler, experts, attention, gateway; 0: free"
            ),
            ServiceProcess.logLevelOption,
            ServiceProcess.threadsOption("threads per service"),
            CommandLineOption("decay", value: "a|b", help: "decay convention of the linear layers", fallback: "a"),
            ServiceProcess.weightsOption,
            ServedCheckpoint.cacheOption,
        ] + gatewayOptions + [
            CommandLineOption("byte-tokenizer", help: "without tokenizer.json, treat ids 0…255 as bytes of UTF-8")
        ] + emulationOptions, position: "model")

    /// Options of `--mode emulate`, which go to the attention instances.
    private static let emulationOptions = EmulationOptions.options + EmulationOptions.pacing

    /// Options of attention instances that are passed on.
    private static let attentionOptions = AttentionService.options.options.filter {
        ["state-memory", "state-ratio", "prefix-cache", "lease", "queue"].contains($0.name)
    }

    /// Options of the gateway that are passed on.
    private static let gatewayOptions = GatewayService.options.options.filter {
        [
            "served-model-name", "generation-config", "api-keys-file", "key-requests", "cors-origin", "drain-timeout",
            "placement",
            "retry-share", "retry-floor", "timeout", "http-connections", "http-body", "http-keep-alive", "sse-ping",
        ].contains($0.name)
    }

    static func run(_ values: OptionValues, _ loop: UVLoop) async throws {
        let set = try ServiceSet(try plan(values), loop: loop)
        set.onFailure { reason in
            ServiceProcess.complain("ironling: \(reason)")
            stop(set, loop, status: 1)
        }
        // A second signal does not wait for what is in flight.
        let isStopping = LoopBound(false, on: loop)
        for number in [SIGINT, SIGTERM] {
            loop.onSignal(number) {
                if isStopping.value {
                    set.kill()
                    exit(1)
                }
                isStopping.value = true
                stop(set, loop, status: 0)
            }
        }
        let isEmulated = try ServiceInputs.isEmulated(values)
        if isEmulated { try announceEmulation(values) }
        guard try await set.start() else { return }
        let address = "http://\(HostPort.calling(listener: try values.host(), port: set.httpPort))"
        if !set.metricsAddresses.isEmpty {
            ServiceProcess.announce("metrics " + set.metricsAddresses.map(\.description).joined(separator: ","))
        }
        ServiceProcess.announce("ready \(address)")
        let hasTokenizer = try isEmulated || ModelFolder(values.required("model")).has("tokenizer.json")
        let prompt = hasTokenizer ? "\"It is a truth\"" : "[1, 2, 3]"
        ServiceProcess.announce(
            "try: curl \(address)/v1/completions -H 'Content-Type: application/json' "
                + "-d '{\"prompt\": \(prompt), \"max_tokens\": 32}'")
    }

    /// Says what is emulated and what is not, before anybody takes it for the real thing.
    private static func announceEmulation(_ values: OptionValues) throws {
        let model = try EmulatedModel(try values.required("model"))
        let serving = try ServingDeployment(shape: model.shape, try EmulationOptions.choice(values))
        let bodies =
            try EmulationOptions.elidesBodies(values)
            ? "without their tensors (--elide-bodies off sends zeros of the real sizes)"
            : "with zeros of the real sizes"
        let speedup = try EmulationOptions.speedup(values)
        ServiceProcess.announce(
            "emulating \(model.name) on \(serving.deployment.layout), at \(speedup) times its "
                + "speed: no weights, answers are dummy text. Scheduling, pools, hand-off and messages are real; messages go "
                + bodies + ".")
    }

    private static func stop(_ set: ServiceSet, _ loop: UVLoop, status: Int32) {
        Task(executorPreference: loop) {
            await set.stop()
            exit(status)
        }
    }

    /// What is emulated is checked here, so that it is refused with one sentence instead of four.
    private static func planEmulation(_ plan: inout ServiceSetPlan, _ values: OptionValues) throws(UsageError) {
        guard values.text("state-memory") == nil else {
            throw UsageError(
                "--state-memory sizes real memory; emulated ranks take --slots and --kv-tokens, or their HBM")
        }
        guard values.text("prefix-cache") ?? "off" == "off" else {
            throw UsageError("--prefix-cache keeps real states; emulated ranks have none")
        }
        do {
            let model = try EmulatedModel(plan.model)
            let serving = try ServingDeployment(shape: model.shape, try EmulationOptions.choice(values))
            plan.emulation = ServiceSetPlan.Emulation(
                ranks: serving.ranks, slice: serving.choice.slice,
                expertDevices: serving.deployment.layout.expertDevices)
        } catch { throw UsageError("\(error)") }
        let names = emulationOptions.map(\.name) + ["prefill-chunk", "slots", "kv-tokens", "queue"]
        plan.attentionArguments = names.flatMap { name in values.text(name).map { ["--\(name)", $0] } ?? [] }
    }

    static func plan(_ values: OptionValues) throws(UsageError) -> ServiceSetPlan {
        var plan = ServiceSetPlan(model: try values.required("model"))
        plan.experts = try values.integer("experts", in: 1...256)
        plan.prefills = try values.integer("prefill", in: 0...64)
        plan.decodes = try values.integer("decode", in: 0...64)
        guard (plan.prefills > 0) == (plan.decodes > 0) else {
            throw UsageError("--prefill and --decode go together: a prompt's state is handed from one to the other")
        }
        plan.attentions = plan.prefills > 0 ? 0 : 1
        if values.text("attention") != nil { plan.attentions = try values.integer("attention", in: 0...64) }
        guard plan.attentions + plan.decodes > 0 else { throw UsageError("--attention 0 needs --prefill and --decode") }
        if try ServiceInputs.isEmulated(values) {
            try planEmulation(&plan, values)
        } else {
            if values.text("prefill-chunk") != nil {
                plan.prefillChunk = try values.integer("prefill-chunk", in: 64...16384)
            }
            if values.text("slots") != nil { plan.slots = try values.integer("slots", in: 1...4096) }
            if values.text("kv-tokens") != nil { plan.kvTokens = try values.integer("kv-tokens", in: 64...(1 << 26)) }
            if values.text("state-memory") != nil { plan.stateMemory = try values.bytes("state-memory") }
            plan.prefixCache = try PrefixCacheOption(values)
            plan.attentionArguments = attentionOptions.flatMap { option in
                values.text(option.name).map { ["--\(option.name)", $0] } ?? []
            }
        }
        plan.threads = try values.integer("threads", in: 1...256)
        plan.decay = try values.required("decay")
        plan.weights = try values.required("weights")
        plan.digestCache = values.text("digest-cache")
        plan.host = try values.host()
        plan.rpcPort = try values.integer("rpc-port", in: 0...65535)
        plan.httpPort = try values.integer("http-port", in: 0...65535)
        plan.drainSeconds = try values.integer("drain-timeout", in: 0...3600)
        plan.gatewayArguments = gatewayOptions.flatMap { option in
            values.text(option.name).map { ["--\(option.name)", $0] } ?? []
        }
        plan.usesBytes = values.isOn("byte-tokenizer")
        plan.clientSecretFile = values.text("client-secret-file")
        plan.logLevel = try values.required("log-level")
        if values.text("metrics-port") != nil {
            plan.servesMetrics = true
            plan.metricsPort = try values.integer(
                "metrics-port", in: 0...65534 - plan.experts - plan.attentions - plan.prefills - plan.decodes)
        }
        return plan
    }
}
