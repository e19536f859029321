/// What `IRONLING_*` variables may be called, whichever program reads them: one environment often serves several, and a
/// service knows only its own options. A test holds the list to what the programs show.
public enum KnownOptions {
    /// The options of all programs.
    public static let all = """
        ablate accept activation-quant active-list allow-failures allow-remote answer api-key-file api-keys-file
        attention base-url budget burstiness byte-tokenizer cancellation-rate chunk client-secret-file concurrency
        concurrency-ramp-duration context cors-origin costs dataset-name dataset-path decay decode disable-ignore-eos
        dp-rank drain-timeout elide-bodies ep experts gateway gather goodput gsp-num-groups gsp-output-len
        gsp-prompts-per-group gsp-question-len gsp-system-prompt-len hidden host http-body http-connections http-port
        id ignore-eos in-process input-len intermediate json kernel key-requests kv-tokens layout lease limit
        log-level max-concurrency max-duration max-tokens maximum-rows metadata metrics-port mode model
        mooncake-slowdown-factor num-prompts numerics older-than only output output-file output-len parameters parent
        peer-wait placement plot port prefill prefill-chunk prequant probe-input-len probe-output-len probe-stream
        prompt prompt-ids provenance queue queue-timeout quiet ramp-up-end-rps ramp-up-start-rps ramp-up-strategy
        random-input-len random-output-len random-range-ratio ratio report request-rate request-timeout retry-floor
        retry-share role routing rpc-port sampler scale-block seconds secret-file seed send-gap served-model-name
        services serving shape shard shards shared-expert sharegpt-input-limit sharegpt-output-len slice slots speedup
        state-memory state-ratio step-policy stride system temperature tensor-parallel text threads tile timeline
        timeout tokenizer tokens top-k top-p tp trace trace-length-scale trace-limit tune url vocabulary-size
        warmup-requests weights within wrap
        """.split(whereSeparator: \.isWhitespace).map(String.init)

    /// Variables that no option mirrors: of the compose file, of the build and of its measurements.
    static let variables = [
        "IRONLING_MODEL_NAME", "IRONLING_CPUS", "IRONLING_MEMORY", "IRONLING_PROMETHEUS_PORT", "IRONLING_IMAGE",
        "IRONLING_TARGET_CPU", "IRONLING_ALLOCATIONS", "IRONLING_TEST_TRACE", "IRONLING_WRITE_FRAMES", "IRONLING_TORCH",
    ]
}
