/// The names of all options of all programs, by the title they stand under in `--help`. `IRONLING_*` variables are held
/// to it: one environment often serves several programs, and each knows only its own options. A test holds it to what
/// the programs show.
public enum KnownOptions {
    private static let table = """
        Model: model mode decay weights byte-tokenizer digest-cache generation-config tokenizer threads
        Addresses: host http-port rpc-port port metrics-port gateway base-url services url allow-remote
        Services: attention prefill decode experts sampler role shard shards dp-rank peer-wait lease maximum-rows
        Access: secret-file client-secret-file api-keys-file api-key-file key-requests cors-origin
        Memory and steps: slots kv-tokens state-memory state-ratio prefix-cache queue \
            prefill-chunk
        Clients: served-model-name placement retry-share retry-floor timeout drain-timeout http-connections \
            http-body http-keep-alive sse-ping
        Emulation and simulated devices: slice layout tp ep kernel step-policy gather speedup elide-bodies numerics \
            tile
        Prompt and answer: prompt prompt-ids system max-tokens temperature top-k top-p seed ignore-eos in-process
        Data: dataset-name dataset-path num-prompts random-input-len random-output-len random-range-ratio \
            gsp-num-groups gsp-prompts-per-group gsp-system-prompt-len gsp-question-len gsp-output-len \
            turns-conversations turns-per-conversation turns-first-len turns-question-len turns-output-len \
            mooncake-slowdown-factor trace-length-scale trace-limit sharegpt-output-len sharegpt-input-limit \
            vocabulary-size disable-ignore-eos text context stride limit
        Load: max-concurrency concurrency concurrency-ramp-duration request-rate burstiness ramp-up-strategy \
            ramp-up-start-rps ramp-up-end-rps cancellation-rate warmup-requests max-duration request-timeout \
            queue-timeout probe-stream probe-input-len probe-output-len
        Simulated call: shape hidden intermediate scale-block tokens activation-quant shared-expert metadata \
            active-list prequant ablate routing wrap parameters tune tensor-parallel input-len output-len chunk costs \
            serving ratio budget send-gap provenance only accept answer
        Output: json output output-file report goodput quiet trace timeline plot seconds id older-than within \
            allow-failures
        Process: log-level parent tell
        Completion: shell
        """

    private static let titles: [String: String] = {
        var titles: [String: String] = [:]
        for line in table.split(separator: "\n") {
            let parts = line.split(separator: ":", maxSplits: 1).map(String.init)
            for name in parts.last?.split(separator: " ") ?? [] { titles[String(name)] = parts.first }
        }
        return titles
    }()

    /// The names.
    public static let all = titles.keys.sorted()

    /// The title of an option.
    public static func title(of option: String) -> String { titles[option] ?? "Other" }

    /// Variables that no option mirrors: of the compose file, of the build and of its measurements.
    static let variables = [
        "IRONLING_MODEL_NAME", "IRONLING_CPUS", "IRONLING_MEMORY", "IRONLING_PROMETHEUS_PORT", "IRONLING_IMAGE",
        "IRONLING_TARGET_CPU", "IRONLING_ALLOCATIONS", "IRONLING_TEST_TRACE", "IRONLING_WRITE_FRAMES", "IRONLING_TORCH",
    ]
}
