import Observability
import RPC
import Serving
import WireProtocol

/// What the gateway measures of the requests it serves, with names and definitions like the field's. Times begin when a
/// completion is asked for, its prompt not yet tokenized.
struct GatewayMetrics: Sendable {
    /// Bounds of times of whole requests: 1 ms to 240 s.
    static let requestBounds = [
        0.001, 0.002, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 10, 20, 40, 80, 240,
    ]
    /// Bounds of gaps between tokens: 0.5 ms to 10 s.
    static let tokenBounds = [
        0.0005, 0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.075, 0.1, 0.25, 0.5, 1, 2.5, 10,
    ]
    /// Bounds of numbers of tokens: 1 to 131,072.
    static let countBounds = Histogram.exponentialBounds(start: 1, factor: 2, count: 18)

    let timeToFirstToken: Histogram
    let interToken: Histogram
    let endToEnd: Histogram
    let queue: Histogram
    let promptTokens: Histogram
    let generatedTokens: Histogram
    let promptTotal: Counter
    let generatedTotal: Counter
    let restarts: Counter
    let deliverySeconds: Histogram
    private let outcomes: [String: Counter]
    private let responses: [Counter]
    private let fields: [String: Counter]

    init(_ registry: MetricsRegistry) {
        timeToFirstToken = registry.histogram(
            "ironling_ttft_seconds", help: "Time to first token.", bounds: Self.requestBounds)
        interToken = registry.histogram(
            "ironling_inter_token_seconds", help: "Gap between two tokens of a completion.", bounds: Self.tokenBounds)
        endToEnd = registry.histogram(
            "ironling_e2e_seconds", help: "Time of a completion, from its start to its end.", bounds: Self.requestBounds
        )
        queue = registry.histogram(
            "ironling_queue_seconds", help: "Time a completion waits for an instance.", bounds: Self.requestBounds)
        deliverySeconds = registry.histogram(
            "ironling_gateway_delivery_seconds",
            help: "Time in the gateway from a token's arrival until it is handed to its client's connection.",
            bounds: [0.000005, 0.00001, 0.00002, 0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.005, 0.02, 0.1, 1])
        promptTokens = registry.histogram(
            "ironling_prompt_tokens", help: "Tokens of a completion's prompt.", bounds: Self.countBounds)
        generatedTokens = registry.histogram(
            "ironling_generation_tokens", help: "Tokens generated for a completion.", bounds: Self.countBounds)
        promptTotal = registry.counter("ironling_prompt_tokens_total", help: "Tokens of all prompts.")
        generatedTotal = registry.counter("ironling_generation_tokens_total", help: "Tokens generated.")
        restarts = registry.counter(
            "ironling_request_restarts_total", help: "Completions placed again because their instance was lost or full."
        )
        outcomes = Dictionary(
            uniqueKeysWithValues: ["stop", "length", "cancelled", "invalid", "rejected", "timeout", "failed"].map {
                (
                    $0,
                    registry.counter(
                        "ironling_requests_total", help: "Completions that are over, by how they ended.",
                        labels: ["outcome": $0])
                )
            })
        fields = Dictionary(
            uniqueKeysWithValues: ["harmless", "usual", "refused"].map {
                (
                    $0,
                    registry.counter(
                        "ironling_request_fields_total",
                        help: "Fields of requests that were accepted without being used, or refused, by their class.",
                        labels: ["class": $0])
                )
            })
        responses = (1...5).map {
            registry.counter(
                "ironling_http_responses_total", help: "Answers to HTTP requests, by class of status.",
                labels: ["status": "\($0)xx"])
        }
    }

    /// Counts a completion that is over.
    func count(_ result: Result<End, RPCError>) {
        outcomes[Self.outcome(result)]?.increment()
    }

    private static func outcome(_ result: Result<End, RPCError>) -> String {
        switch result {
        case .success(let end): end.reason == .stop ? "stop" : "length"
        case .failure(let error):
            switch error.code {
            case .cancelled: "cancelled"
            case .invalidArgument, .limitExceeded: "invalid"
            case .notAccepted: "rejected"
            case .deadlineExceeded: "timeout"
            default: "failed"
            }
        }
    }

    /// Counts the fields of a request that were accepted without being used.
    func count(_ counts: FieldCounts) {
        fields["harmless"]?.increment(by: UInt64(counts.harmless))
        fields["usual"]?.increment(by: UInt64(counts.usual))
    }

    /// Counts a field that was refused.
    func countRefusedField() { fields["refused"]?.increment() }

    /// Counts an HTTP answer.
    func count(status: Int) {
        let index = status / 100 - 1
        if responses.indices.contains(index) { responses[index].increment() }
    }
}

/// Times one completion. Confined to the loop.
struct CompletionMeter {
    private let metrics: GatewayMetrics
    private let started = Stopwatch.now
    private var last: Int64
    private(set) var tokens = 0

    init(_ metrics: GatewayMetrics) {
        self.metrics = metrics
        last = started
    }

    /// The completion was placed for the first time.
    func placed() { metrics.queue.observe(Self.seconds(Stopwatch.now - started)) }

    /// A token arrived.
    mutating func token(at now: Int64) {
        let gap = Self.seconds(now - last)
        if tokens == 0 { metrics.timeToFirstToken.observe(gap) } else { metrics.interToken.observe(gap) }
        tokens += 1
        last = now
    }

    /// A token that arrived at `arrival` has been handed on.
    func delivered(since arrival: Int64) { metrics.deliverySeconds.observe(Self.seconds(Stopwatch.now - arrival)) }

    /// The completion is over.
    func end(_ result: Result<End, RPCError>, promptTokens: Int) {
        metrics.count(result)
        metrics.generatedTotal.increment(by: UInt64(tokens))
        guard case .success = result else { return }
        metrics.endToEnd.observe(Self.seconds(Stopwatch.now - started))
        metrics.promptTotal.increment(by: UInt64(promptTokens))
        metrics.promptTokens.observe(Double(promptTokens))
        metrics.generatedTokens.observe(Double(tokens))
    }

    private static func seconds(_ nanoseconds: Int64) -> Double { Double(nanoseconds) / 1e9 }
}
