import Foundation
import LoadTesting
import Testing

struct SummaryTests {
    /// Three answers of 4 tokens, 10 ms apart, the first after 20 ms; one cancelled, two failed.
    private var records: [RequestRecord] {
        var records = (0..<6).map { index in
            let start = UInt64(index) * 100_000
            var record = RequestRecord(index: index, due: start, sent: start, inputTokens: 5)
            for token in 0..<4 { record.add(tokens: 1, at: start + 20_000 + UInt64(token) * 10_000) }
            record.ended = start + 50_000
            return record
        }
        records[3].outcome = .cancelled
        records[4].outcome = .failed(CompletionFailure("HTTP 429", "busy <now>"))
        records[5].outcome = .failed(CompletionFailure("HTTP 429", "busy again"))
        records[0].cachedTokens = 2
        return records
    }

    private var settings: LoadSettings {
        var settings = LoadSettings()
        settings.requestCount = 7
        settings.requestRate = 10
        settings.isOpenLoop = true
        settings.serviceLevels = [ServiceLevel(.ttft, milliseconds: 20)]
        return settings
    }

    @Test func everyOutcomeIsCounted() {
        let summary = LoadSummary(records, settings: settings)
        #expect(summary.completed == 3 && summary.cancelled == 1 && summary.failed == 2 && summary.unsent == 1)
        #expect(summary.failures == [.init(kind: "HTTP 429", count: 2, example: "busy <now>")])
        #expect(summary.inputTokens == 15 && summary.outputTokens == 12 && summary.wastedTokens == 12)
        #expect(summary.duration == 0.55 && summary.peakConcurrency == 1)
        #expect(summary.cacheHitRate == 0.4)
        #expect(abs(summary.goodput - 3 / 0.55) < 1e-9)
        #expect(abs(summary.concurrency - 0.15 / 0.55) < 1e-9)
        #expect(summary.interTokenLatency.count == 9 && summary.interTokenLatency.median == 10)
    }

    @Test func theBlockHasTheLabelsThatUsersKnow() {
        let text = ResultBlock.text(LoadSummary(records, settings: settings))
        let lines = text.split(separator: "\n").map(String.init)
        #expect(lines.first == "============ Serving Benchmark Result ============")
        #expect(lines.last == String(repeating: "=", count: 50))
        for wanted in [
            "Successful requests:                     3", "Benchmark duration (s):                  0.55",
            "Request throughput (req/s):              5.45", "Mean TTFT (ms):                          20.00",
            "P99 ITL (ms):                            10.00", "Median TPOT (ms):                        10.00",
            "Mean E2E Latency (ms):                   50.00", "HTTP 429:                                2",
            "----------------End-to-End Latency----------------", "---------------Time to First Token----------------",
            "-----Time per Output Token (excl. 1st token)------", "---------------Inter-Token Latency----------------",
            "Request goodput (req/s):                 5.45", "  for example: busy <now>",
        ] { #expect(lines.contains(wanted), "\(wanted) is not in\n\(text)") }
    }

    @Test func theObjectHasTheKeysThatUsersKnow() throws {
        let data = try ResultJSON.data(LoadSummary(records, settings: settings))
        let object = try #require(JSONSerialization.jsonObject(with: data) as? [String: Any])
        for key in [
            "backend", "dataset_name", "request_rate", "max_concurrency", "duration", "completed",
            "total_input_tokens", "total_output_tokens", "request_throughput", "input_throughput",
            "output_throughput", "mean_e2e_latency_ms", "median_e2e_latency_ms", "std_e2e_latency_ms",
            "p99_e2e_latency_ms", "mean_ttft_ms", "median_ttft_ms", "std_ttft_ms", "p99_ttft_ms", "mean_tpot_ms",
            "median_tpot_ms", "std_tpot_ms", "p99_tpot_ms", "mean_itl_ms", "median_itl_ms", "std_itl_ms",
            "p95_itl_ms", "p99_itl_ms", "max_itl_ms", "concurrency",
        ] { #expect(object[key] != nil, "\(key)") }
        #expect(object["completed"] as? Int == 3 && object["request_rate"] as? Double == 10)
        #expect(!data.contains(10))
    }

    @Test func anEmptyRunHasABlockAndAnObject() throws {
        let summary = LoadSummary([], settings: LoadSettings())
        #expect(ResultBlock.text(summary).contains("Successful requests:                     0"))
        #expect(try !ResultJSON.data(summary).isEmpty)
    }

    @Test func probesTellAloneFromBesideTheLoad() {
        var record = RequestRecord(index: 0, due: 0, sent: 0, inputTokens: 1)
        for time: UInt64 in [10, 20, 30, 50, 80, 300] { record.add(tokens: 1, at: time * 1000) }
        record.outcome = .cutOff
        let probe = ProbeSummary([record], streams: 1, loadStart: 35_000, loadEnd: 100_000)
        #expect(probe.alone.sorted == [10, 10] && probe.underLoad.sorted == [20, 30])
        #expect(probe.worstRatio == 30 / 25.0 && probe.worstRatioToAlone == 3)
        let text = ResultBlock.text(LoadSummary(records, settings: settings, probe: probe, clientShare: 0.125))
        #expect(text.contains("Max over median beside the load:         1.20"))
        #expect(text.contains("Max beside the load over median alone:   3.00"))
        #expect(text.contains("Load generator's use of one CPU (%):     12.50"))
    }

    @Test func theReportIsOneFileWhateverAServerSays() {
        var hostile = records
        hostile[4].outcome = .failed(CompletionFailure("HTTP <500>", "<script>alert(\"1\")</script> & more"))
        var settings = settings
        settings.target = "http://x/?a=\"><img src=y>"
        let html = HTMLReport.text(LoadSummary(hostile, settings: settings), hostile)
        #expect(!html.contains("<script") && !html.contains("<img") && !html.contains("<500>"))
        #expect(html.contains("&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt; &amp; more"))
        #expect(html.components(separatedBy: "<svg").count == 7 && !html.contains("nan") && !html.contains("inf\""))
        #expect(HTMLReport.text(LoadSummary([], settings: settings), []).hasSuffix("</html>\n"))
    }

    @Test func progressCountsAndShowsRatesSinceTheLastLine() {
        var progress = LoadProgress(total: 9)
        progress.received(tokens: 50)
        for record in records { progress.ended(record) }
        #expect(
            progress.line(at: 2, inFlight: 3)
                == "2 s  6/9 done  3 in flight  25 tok/s  TTFT 20 ms  1 given up  2 failed")
        progress.received(tokens: 8)
        #expect(progress.line(at: 4, inFlight: 0).contains(" 4 tok/s "))
    }

    @Test func theLoadIsToldInWords() {
        var settings = LoadSettings()
        #expect(settings.loadDescription == "all at once")
        settings.maxConcurrency = 4
        #expect(settings.loadDescription == "at most 4 in flight")
        settings.isOpenLoop = true
        settings.arrivals = "1 to 20, linear"
        settings.burstiness = 0.5
        #expect(settings.loadDescription == "1 to 20, linear, burstiness 0.5, at most 4 in flight")
    }
}
