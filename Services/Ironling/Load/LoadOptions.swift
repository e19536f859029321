import ServiceSupport

extension LoadCommand {
    static let options = CommandLineOptions(
        program: "ironling load",
        summary: """
            Puts a described load on a server and prints throughput and latencies. TTFT: sending to first output. ITL: gaps
            between outputs, pooled. TPOT: (E2E - TTFT) / (tokens - 1) of each request. Exit status 1 when a request failed.
            """,
        options: targetOptions + workloadOptions + loadOptions + outputOptions + GatewaySession.startOptions,
        position: "model")

    private static let targetOptions = [
        CommandLineOption("base-url", value: "URL", help: "HTTP server, such as http://127.0.0.1:8000"),
        CommandLineOption("gateway", value: "HOST:PORT", help: "binary port of a gateway, instead"),
        CommandLineOption("model", value: "DIR", help: "checkpoint folder; services are started for this run, instead"),
        CommandLineOption("allow-remote", help: "the server may be on another machine"),
        CommandLineOption("served-model-name", value: "NAME", help: "model to ask an HTTP server for"),
        CommandLineOption("api-key-file", value: "FILE", help: "file with the key for an HTTP server", guards: true),
        CommandLineOption(
            "client-secret-file", value: "FILE", help: "file with the secret of the gateway's clients", guards: true),
    ]

    static let workloadOptions = [
        CommandLineOption(
            "dataset-name", value: "NAME", help: "random | random-ids | shared-prefix | turns | trace | sharegpt",
            fallback: "random-ids", choices: ["random", "random-ids", "shared-prefix", "turns", "trace", "sharegpt"]),
        CommandLineOption("num-prompts", value: "N", help: "requests (of a trace: lines)", fallback: "100"),
        CommandLineOption("random-input-len", value: "N", help: "prompt tokens", fallback: "128"),
        CommandLineOption("random-output-len", value: "N", help: "tokens to generate", fallback: "32"),
        CommandLineOption(
            "random-range-ratio", value: "R", help: "lengths are from R times the length up to it; 1: all equal",
            fallback: "1"),
        CommandLineOption("gsp-num-groups", value: "N", help: "shared prefixes", fallback: "8"),
        CommandLineOption("gsp-prompts-per-group", value: "N", help: "requests on each prefix", fallback: "8"),
        CommandLineOption("gsp-system-prompt-len", value: "N", help: "tokens of a shared prefix", fallback: "256"),
        CommandLineOption("gsp-question-len", value: "N", help: "tokens after the prefix", fallback: "32"),
        CommandLineOption("gsp-output-len", value: "N", help: "tokens to generate", fallback: "32"),
        CommandLineOption("turns-conversations", value: "N", help: "conversations", fallback: "8"),
        CommandLineOption("turns-per-conversation", value: "N", help: "turns of each", fallback: "8"),
        CommandLineOption("turns-first-len", value: "N", help: "tokens of the first question", fallback: "256"),
        CommandLineOption("turns-question-len", value: "N", help: "tokens of the others", fallback: "32"),
        CommandLineOption("turns-output-len", value: "N", help: "tokens to generate in each turn", fallback: "32"),
        CommandLineOption(
            "dataset-path", value: "FILE",
            help: "trace (Mooncake JSON lines), or conversations (ShareGPT or messages, an array or lines)"),
        CommandLineOption(
            "mooncake-slowdown-factor", value: "F", help: "a trace's time runs so much slower", fallback: "1"),
        CommandLineOption("trace-length-scale", value: "F", help: "multiplies a trace's lengths", fallback: "1"),
        CommandLineOption("sharegpt-output-len", value: "N", help: "tokens to generate; else as recorded"),
        CommandLineOption(
            "sharegpt-input-limit", value: "N", help: "longer questions are passed over", fallback: "1024"),
        CommandLineOption("tokenizer", value: "DIR", help: "folder with the tokenizer.json that measures text prompts"),
        CommandLineOption("vocabulary-size", value: "N", help: "random ids are below; else as the server says, or 256"),
        CommandLineOption("seed", value: "S", help: "seed of prompts, lengths, arrivals, cancels", fallback: "1"),
        CommandLineOption("disable-ignore-eos", help: "let the model's end tokens end answers"),
    ]

    static let loadOptions = [
        CommandLineOption("max-concurrency", value: "N", help: "requests in flight, at most (else 4096)"),
        CommandLineOption("concurrency-ramp-duration", value: "SEC", help: "time to grow to it", fallback: "0"),
        CommandLineOption("request-rate", value: "R", help: "arrivals per second, or inf", fallback: "inf"),
        CommandLineOption(
            "burstiness", value: "B", help: "shape of the gaps: 1 Poisson, less is burstier", fallback: "1"),
        CommandLineOption(
            "ramp-up-strategy", value: "S", help: "linear or exponential growth of the rate",
            choices: ["linear", "exponential"]),
        CommandLineOption("ramp-up-start-rps", value: "R", help: "rate of the first request", fallback: "1"),
        CommandLineOption("ramp-up-end-rps", value: "R", help: "rate of the last request", fallback: "10"),
        CommandLineOption("cancellation-rate", value: "P", help: "part of the requests given up midway", fallback: "0"),
        CommandLineOption("warmup-requests", value: "N", help: "sent before and not measured", fallback: "1"),
        CommandLineOption("max-duration", value: "SEC", help: "give up what is left after; 0: never", fallback: "0"),
        CommandLineOption("request-timeout", value: "SEC", help: "longest wait for an answer", fallback: "600"),
        CommandLineOption("probe-stream", value: "N", help: "steady decode streams beside the load", fallback: "0"),
        CommandLineOption("probe-input-len", value: "N", help: "prompt tokens of each", fallback: "16"),
        CommandLineOption("probe-output-len", value: "N", help: "tokens until each starts over", fallback: "256"),
    ]

    private static let outputOptions = [
        CommandLineOption(
            "goodput", value: "ttft:MS tpot:MS e2el:MS", help: "bounds a request must keep to count", takesMany: true),
        CommandLineOption("json", help: "print one JSON object instead of the block"),
        CommandLineOption("output-file", value: "FILE", help: "append the JSON object to a file, as a line"),
        CommandLineOption("report", value: "FILE", help: "write an HTML file with plots"),
        CommandLineOption("allow-failures", help: "exit with 0 although requests failed"),
        CommandLineOption("quiet", help: "no progress"),
    ]
}
