import Foundation

/// The result as one JSON object with the keys of `bench_serving`, and keys of the same kind for what it does not have.
public enum ResultJSON {
    /// UTF-8 on one line, with `more` keys beside those of the summary.
    ///
    /// - Throws: what `JSONSerialization` throws when `more` holds what is no JSON.
    public static func data(_ summary: LoadSummary, more: [String: Any] = [:]) throws -> Data {
        var object = counts(summary)
        for (name, values) in [
            ("e2e_latency", summary.latency), ("ttft", summary.timeToFirstToken),
            ("tpot", summary.timePerOutputToken), ("itl", summary.interTokenLatency),
            ("queue_time", summary.queueTime),
        ] { object.merge(distribution(name, values)) { $1 } }
        if let probe = summary.probe { object["probe"] = self.probe(probe) }
        object.merge(more) { $1 }
        return try JSONSerialization.data(withJSONObject: object, options: [.sortedKeys, .withoutEscapingSlashes])
    }

    private static func counts(_ summary: LoadSummary) -> [String: Any] {
        let settings = summary.settings
        var object: [String: Any] = [
            "backend": settings.backend, "base_url": settings.target, "dataset_name": settings.dataset,
            "num_prompts": settings.requestCount, "burstiness": settings.burstiness,
            "seed": Int64(clamping: settings.seed),
            "cancellation_rate": settings.cancellationRate, "completed": summary.completed, "failed": summary.failed,
            "cancelled": summary.cancelled, "cut_off": summary.cutOff, "unsent": summary.unsent,
            "duration": summary.duration, "total_input_tokens": summary.inputTokens,
            "total_output_tokens": summary.outputTokens, "incomplete_output_tokens": summary.wastedTokens,
            "request_throughput": summary.requestThroughput, "input_throughput": summary.inputThroughput,
            "output_throughput": summary.outputThroughput,
            "total_throughput": summary.inputThroughput + summary.outputThroughput,
            "max_output_tokens_per_s": summary.peakOutputThroughput,
            "max_concurrent_requests": summary.peakConcurrency, "concurrency": summary.concurrency,
            "errors": summary.failures.map { ["kind": $0.kind, "count": $0.count, "example": $0.example] },
        ]
        object["request_rate"] = settings.requestRate.map { $0 as Any } ?? settings.arrivals ?? "inf"
        if let share = summary.clientShare { object["client_cpu_share"] = share }
        if let lengths = settings.randomLengths {
            object["random_input_len"] = lengths.input.length
            object["random_output_len"] = lengths.output.length
            object["random_range_ratio"] = lengths.input.ratio
        }
        object["max_concurrency"] = settings.maxConcurrency.map { $0 as Any } ?? NSNull()
        if let later = summary.laterTimeToFirstToken {
            object.merge(distribution("ttft_later_turns", later)) { own, _ in own }
        }
        object["cache_hit_rate"] = summary.cacheHitRate.map { $0 as Any } ?? NSNull()
        if !settings.serviceLevels.isEmpty {
            object["goodput"] = settings.serviceLevels.map(\.description).joined(separator: " ")
            object["request_goodput"] = summary.goodput
        }
        switch summary.saturation {
        case .none: object["over_saturated"] = false
        case .over(let load, let wait):
            object["over_saturated"] = true
            object["backlog_growth_per_s"] = load
            object["ttft_growth_ms_per_s"] = wait
        case .notJudged(let reason): object["over_saturation_not_judged"] = reason
        }
        return object
    }

    private static func distribution(_ name: String, _ values: Distribution) -> [String: Any] {
        [
            "mean_\(name)_ms": values.mean, "median_\(name)_ms": values.median,
            "std_\(name)_ms": values.standardDeviation, "p90_\(name)_ms": values.percentile(90),
            "p95_\(name)_ms": values.percentile(95), "p99_\(name)_ms": values.percentile(99),
            "max_\(name)_ms": values.maximum,
        ]
    }

    private static func probe(_ probe: ProbeSummary) -> [String: Any] {
        var object: [String: Any] = [
            "streams": probe.streams, "failed": probe.failures.count, "max_over_median": probe.worstRatio,
            "max_over_median_alone": probe.worstRatioToAlone,
        ]
        object.merge(distribution("itl_alone", probe.alone)) { $1 }
        object.merge(distribution("itl", probe.underLoad)) { $1 }
        return object
    }
}
