import Plots

/// The block that users of `bench_serving` know, with the same labels in the same order; what it does not have follows
/// where it belongs.
public struct ResultBlock: Sendable {
    private static let width = 50
    /// Mean milliseconds below which waiting in the client is the client's own timers.
    private static let leastWait = 5.0
    private var lines: [String] = []

    /// The text for `summary`, without a newline at the end.
    public static func text(_ summary: LoadSummary) -> String {
        var block = ResultBlock()
        block.counts(summary)
        block.section("End-to-End Latency", "E2E Latency", summary.latency)
        block.section("Time to First Token", "TTFT", summary.timeToFirstToken)
        if let later = summary.laterTimeToFirstToken {
            block.section("Time to First Token, from the Second Turn on", "TTFT", later)
        }
        block.section("Time per Output Token (excl. 1st token)", "TPOT", summary.timePerOutputToken)
        block.section("Inter-Token Latency", "ITL", summary.interTokenLatency)
        if summary.queueTime.mean >= Self.leastWait {
            block.section("Wait in the Client", "Wait", summary.queueTime)
        }
        if let probe = summary.probe { block.probe(probe) }
        block.goodput(summary)
        block.verdicts(summary)
        block.rule("", "=")
        return block.lines.joined(separator: "\n")
    }

    private mutating func counts(_ summary: LoadSummary) {
        let settings = summary.settings
        rule(" Serving Benchmark Result ", "=")
        row("Backend:", settings.backend)
        row("Traffic request rate:", settings.rateText)
        row("Max request concurrency:", settings.maxConcurrency.map(String.init) ?? "not set")
        row("Successful requests:", "\(summary.completed)")
        row("Failed requests:", "\(summary.failed)")
        if summary.cancelled > 0 { row("Cancelled requests (as planned):", "\(summary.cancelled)") }
        if summary.cutOff > 0 { row("Requests cut off at the end:", "\(summary.cutOff)") }
        if summary.unsent > 0 { row("Requests never sent:", "\(summary.unsent)") }
        row("Benchmark duration (s):", Text.fixed(summary.duration))
        row("Total input tokens:", "\(summary.inputTokens)")
        row("Total generated tokens:", "\(summary.outputTokens)")
        if summary.wastedTokens > 0 { row("Tokens of incomplete requests:", "\(summary.wastedTokens)") }
        if let rate = summary.cacheHitRate { row("Cache hit rate (%):", Text.fixed(rate * 100)) }
        row("Request throughput (req/s):", Text.fixed(summary.requestThroughput))
        row("Input token throughput (tok/s):", Text.fixed(summary.inputThroughput))
        row("Output token throughput (tok/s):", Text.fixed(summary.outputThroughput))
        row("Peak output token throughput (tok/s):", "\(summary.peakOutputThroughput)")
        row("Peak concurrent requests:", "\(summary.peakConcurrency)")
        row("Total token throughput (tok/s):", Text.fixed(summary.inputThroughput + summary.outputThroughput))
        row("Concurrency:", Text.fixed(summary.concurrency))
        if let share = summary.clientShare { row("Load generator's use of one CPU (%):", Text.fixed(share * 100)) }
    }

    private mutating func section(_ title: String, _ name: String, _ values: Distribution) {
        rule(title, "-")
        row("Mean \(name) (ms):", Text.fixed(values.mean))
        row("Median \(name) (ms):", Text.fixed(values.median))
        for percent in [90, 95, 99] { row("P\(percent) \(name) (ms):", Text.fixed(values.percentile(Double(percent)))) }
        row("Max \(name) (ms):", Text.fixed(values.maximum))
    }

    private mutating func probe(_ probe: ProbeSummary) {
        rule("Steady Streams beside the Load", "-")
        row("Streams:", "\(probe.streams)")
        row("Gaps alone / beside the load:", "\(probe.alone.count) / \(probe.underLoad.count)")
        row("Median ITL alone (ms):", Text.fixed(probe.alone.median))
        row("Max ITL alone (ms):", Text.fixed(probe.alone.maximum))
        row("Median ITL beside the load (ms):", Text.fixed(probe.underLoad.median))
        row("P99 ITL beside the load (ms):", Text.fixed(probe.underLoad.percentile(99)))
        row("Max ITL beside the load (ms):", Text.fixed(probe.underLoad.maximum))
        row("P99 over median beside the load:", Text.fixed(Self.ratio(probe.underLoad)))
        row("Max over median beside the load:", Text.fixed(probe.worstRatio))
        row("Max beside the load over median alone:", Text.fixed(probe.worstRatioToAlone))
        if !probe.failures.isEmpty { row("Failed requests of the streams:", "\(probe.failures.count)") }
    }

    private static func ratio(_ values: Distribution) -> Double {
        values.median > 0 ? values.percentile(99) / values.median : 0
    }

    private mutating func goodput(_ summary: LoadSummary) {
        guard !summary.settings.serviceLevels.isEmpty else { return }
        rule("Goodput", "-")
        row("Service level:", summary.settings.serviceLevels.map(\.description).joined(separator: " "))
        row("Requests within it:", "\(summary.goodRequests)")
        row("Request goodput (req/s):", Text.fixed(summary.goodput))
    }

    private mutating func verdicts(_ summary: LoadSummary) {
        let problems = summary.failures + Self.failures(of: summary.probe)
        if !problems.isEmpty {
            rule("Failures", "-")
            for failure in problems {
                row("\(failure.kind):", "\(failure.count)")
                lines.append("  for example: \(Self.short(failure.example))")
            }
        }
        if case .over(let load, let wait) = summary.saturation {
            rule("Over-saturated", "-")
            lines.append("The server does not keep up with the request rate: the")
            lines.append("backlog grows by \(Text.fixed(load)) requests and the time to first")
            lines.append("token by \(Text.fixed(wait)) ms every second. The latencies above")
            lines.append("depend on how long the run was.")
        }
    }

    private static func failures(of probe: ProbeSummary?) -> [LoadSummary.FailureCount] {
        guard let probe, let first = probe.failures.first else { return [] }
        return [
            LoadSummary.FailureCount(
                kind: "steady streams", count: probe.failures.count, example: first.description)
        ]
    }

    private static func short(_ sentence: String) -> String {
        let line = sentence.split(whereSeparator: \.isNewline).joined(separator: " ")
        return line.count <= 200 ? line : line.prefix(200) + "…"
    }

    private mutating func rule(_ title: String, _ mark: String) {
        let left = (Self.width - title.count) / 2
        lines.append(
            String(repeating: mark, count: left) + title
                + String(repeating: mark, count: Self.width - title.count - left))
    }

    private mutating func row(_ label: String, _ value: String) {
        lines.append(label + String(repeating: " ", count: max(1, 41 - label.count)) + value)
    }
}
