import Foundation
import Plots

/// One self-contained HTML file: what was asked for, the numbers, and plots of them.
public enum HTMLReport {
    private static let (blue, orange, green, red) = ("#2563a8", "#d9701a", "#2d8659", "#b3261e")
    private static let pointLimit = 2000
    private static let binCount = 48

    /// The file's text; `figures` are further SVG elements, `notes` further lines of the text at the end.
    public static func text(
        _ summary: LoadSummary, _ records: [RequestRecord], figures: [String] = [], notes: String = ""
    ) -> String {
        let settings = summary.settings
        let title = "Load test: \(settings.dataset) over \(settings.backend)"
        let plots = (distributions(summary) + overTime(records)).map(\.svg) + figures
        return """
            <!doctype html>
            <html lang="en"><head><meta charset="utf-8"><title>\(Text.escaped(title))</title>
            <style>\(style)\(plotStyle)</style></head><body>
            <h1>\(Text.escaped(title))</h1>
            <p>\(Text.escaped(describe(settings)))</p>
            \(verdicts(summary))
            \(table(summary))
            <div class="plots">\(plots.map { "<figure>\($0)</figure>" }.joined(separator: "\n"))</div>
            <h2>As text</h2>
            <pre>\(Text.escaped(ResultBlock.text(summary) + (notes.isEmpty ? "" : "\n\n" + notes)))</pre>
            </body></html>

            """
    }

    /// The plots alone as one SVG file, two in a row; `figures` are further SVG elements of 560 by 300.
    public static func picture(_ summary: LoadSummary, _ records: [RequestRecord], figures: [String] = []) -> String {
        let plots = (distributions(summary) + overTime(records)).map(\.svg) + figures
        let (width, height) = (Int(Chart.width), Int(Chart.height))
        let rows = (plots.count + 1) / 2
        let placed = plots.enumerated().map { index, plot in
            "<svg x=\"\(index % 2 * width)\" y=\"\(40 + index / 2 * height)\" width=\"\(width)\" height=\"\(height)\">"
                + plot + "</svg>"
        }
        let size = "width=\"\(2 * width)\" height=\"\(40 + rows * height)\""
        return """
            <svg xmlns="http://www.w3.org/2000/svg" \(size) viewBox="0 0 \(2 * width) \(40 + rows * height)">
            <style>text{font-family:system-ui,"DejaVu Sans",sans-serif}\(plotStyle)</style>
            <rect width="100%" height="100%" fill="#fff"/>
            <text x="16" y="26" font-size="16">\(Text.escaped(describe(summary.settings)))</text>
            \(placed.joined(separator: "\n"))
            </svg>

            """
    }

    private static func describe(_ settings: LoadSettings) -> String {
        var parts = [
            "\(settings.requestCount) requests to \(settings.target)", settings.loadDescription,
            "seed \(settings.seed)",
        ]
        if settings.cancellationRate > 0 {
            parts.append("\(Text.number(settings.cancellationRate * 100)) % given up midway")
        }
        return parts.joined(separator: " · ")
    }

    private static func verdicts(_ summary: LoadSummary) -> String {
        var lines: [String] = []
        if case .over(let load, let wait) = summary.saturation {
            lines.append(
                "Over-saturated: the backlog grew by \(Text.fixed(load)) requests and TTFT by \(Text.fixed(wait)) ms every "
                    + "second. These latencies depend on how long the run was.")
        }
        for failure in summary.failures {
            lines.append("\(failure.count) × \(failure.kind), for example: \(failure.example)")
        }
        return lines.map { "<p class=\"bad\">\(Text.escaped($0))</p>" }.joined(separator: "\n")
    }

    private static func table(_ summary: LoadSummary) -> String {
        let counts = [
            ("Successful", "\(summary.completed)"), ("Failed", "\(summary.failed)"),
            ("Cancelled", "\(summary.cancelled)"), ("Duration", "\(Text.fixed(summary.duration)) s"),
            ("Requests", "\(Text.fixed(summary.requestThroughput))/s"),
            ("Output", "\(Text.fixed(summary.outputThroughput)) tok/s"),
            ("Input", "\(Text.fixed(summary.inputThroughput)) tok/s"),
            ("Concurrency", Text.fixed(summary.concurrency)), ("Peak in flight", "\(summary.peakConcurrency)"),
        ]
        let cards = counts.map { "<div><span>\($0.0)</span><b>\($0.1)</b></div>" }.joined()
        var rows = [
            ("E2E latency", summary.latency), ("TTFT", summary.timeToFirstToken),
            ("TPOT", summary.timePerOutputToken), ("ITL", summary.interTokenLatency),
        ]
        if let probe = summary.probe {
            rows += [("ITL of steady streams, alone", probe.alone), ("… beside the load", probe.underLoad)]
        }
        let cells = rows.map { name, values in
            let numbers = [
                values.mean, values.median, values.percentile(90), values.percentile(95), values.percentile(99),
                values.maximum,
            ]
            return "<tr><th>\(name)</th>" + numbers.map { "<td>\(Text.fixed($0))</td>" }.joined() + "</tr>"
        }
        return "<div class=\"cards\">\(cards)</div><table><tr><th>ms</th><th>mean</th><th>median</th><th>P90</th>"
            + "<th>P95</th><th>P99</th><th>max</th></tr>\(cells.joined())</table>"
    }

    // MARK: Plots

    private static func distributions(_ summary: LoadSummary) -> [Chart] {
        [
            histogram("Time to first token", "requests", summary.timeToFirstToken, blue, level(.ttft, summary)),
            histogram(
                "Time per output token (excl. first)", "requests", summary.timePerOutputToken, green,
                level(.tpot, summary)),
            histogram("Inter-token latency, up to its P99.5", "gaps", summary.interTokenLatency, orange, nil),
        ] + (summary.probe.map { [probe($0)] } ?? [])
    }

    private static func level(_ metric: ServiceLevel.Metric, _ summary: LoadSummary) -> Double? {
        summary.settings.serviceLevels.first { $0.metric == metric }?.milliseconds
    }

    private static func histogram(
        _ title: String, _ what: String, _ values: Distribution, _ color: String, _ bound: Double?
    ) -> Chart {
        let end = what == "gaps" ? values.percentile(99.5) : values.maximum
        let (points, width) = bins(values, to: end)
        var marks = [
            Chart.Mark(x: values.median, name: "median \(Text.number(values.median, digits: 1))"),
            Chart.Mark(x: values.percentile(99), name: "P99 \(Text.number(values.percentile(99), digits: 1))"),
        ]
        if let bound, bound <= end { marks.append(Chart.Mark(x: bound, name: "bound \(Text.number(bound))")) }
        return Chart(
            title: title, xLabel: "ms", yLabel: what,
            series: [Chart.Series(name: title, color: color, style: .bars, points: points, barWidth: width)],
            marks: values.count == 0 ? [] : marks)
    }

    private static func bins(_ values: Distribution, to end: Double) -> (points: [(x: Double, y: Double)], Double) {
        let width = max(end, 1e-6) / Double(binCount)
        var counts = Array(repeating: 0.0, count: binCount)
        for value in values.sorted where value <= end { counts[min(binCount - 1, Int(value / width))] += 1 }
        return (counts.enumerated().map { (Double($0.offset) * width, $0.element) }, width)
    }

    private static func probe(_ probe: ProbeSummary) -> Chart {
        func line(_ name: String, _ values: Distribution, _ color: String) -> Chart.Series {
            let points = (0...200).map { (x: values.percentile(Double($0) / 2), y: Double($0) / 2) }
            return Chart.Series(name: name, color: color, style: .line, points: values.count == 0 ? [] : points)
        }
        return Chart(
            title: "Gaps of the steady streams", xLabel: "ms", yLabel: "% of gaps up to",
            series: [line("alone", probe.alone, blue), line("beside the load", probe.underLoad, red)],
            yEnd: 100)
    }

    private static func overTime(_ records: [RequestRecord]) -> [Chart] {
        guard let first = records.map(\.sent).min(), let last = records.map(\.ended).max(), last > first else {
            return []
        }
        let seconds = Double(last - first) / 1e6
        let bins = max(10, min(120, Int(seconds * 4)))
        let width = seconds / Double(bins)
        var tokens = Array(repeating: 0.0, count: bins)
        for record in records {
            for (time, count) in zip(record.outputTimes, record.outputCounts) {
                tokens[min(bins - 1, Int(Double(time - first) / 1e6 / width))] += Double(count) / width
            }
        }
        let series = InFlightSeries(records, fromSending: true)
        let middles = (0..<bins).map { (Double($0) + 0.5) * width }
        let inFlight = (0..<bins).map { bin in
            series.mean(
                from: Double(first) + Double(bin) * width * 1e6, to: Double(first) + Double(bin + 1) * width * 1e6)
        }
        return [
            line("Output throughput", "tokens/s", zip(middles, tokens).map { ($0, $1) }, blue, seconds),
            line("Requests in flight", "requests", zip(middles, inFlight).map { ($0, $1) }, green, seconds),
            waits(records, first),
        ]
    }

    private static func line(
        _ title: String, _ label: String, _ points: [(x: Double, y: Double)], _ color: String, _ seconds: Double
    ) -> Chart {
        Chart(
            title: title, xLabel: "seconds", yLabel: label,
            series: [Chart.Series(name: title, color: color, style: .line, points: points)], xEnd: seconds)
    }

    /// Time to first token of each request by when it was sent; of very many, every n-th.
    private static func waits(_ records: [RequestRecord], _ first: UInt64) -> Chart {
        let step = max(1, records.count / pointLimit)
        let points = stride(from: 0, to: records.count, by: step).compactMap { index -> (x: Double, y: Double)? in
            let record = records[index]
            return record.timeToFirstToken.map { (Double(record.sent - first) / 1e6, $0) }
        }
        return Chart(
            title: "Time to first token by when the request was sent", xLabel: "seconds", yLabel: "ms",
            series: [Chart.Series(name: "TTFT", color: orange, style: .points, points: points)])
    }

    private static let style = """
        body{font:15px/1.5 system-ui,"DejaVu Sans",sans-serif;color:#1d2730;background:#fff;max-width:1180px;margin:24px auto;
        padding:0 20px}h1{font-size:24px;margin:0}h2{font-size:18px}.bad{color:#b3261e;font-weight:600}
        .cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(112px,1fr));gap:10px;margin:16px 0}
        .cards div{border:1px solid #d8dee4;border-radius:6px;padding:8px 10px}.cards span{display:block;font-size:12px;
        color:#5a6672}.cards b{font-size:16px}table{border-collapse:collapse;margin:12px 0}th,td{padding:4px 14px;
        border-bottom:1px solid #e3e8ec;text-align:right;font-variant-numeric:tabular-nums}th:first-child{text-align:left}
        .plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(480px,1fr));gap:16px}figure{margin:0;
        border:1px solid #d8dee4;border-radius:6px;padding:8px}svg{width:100%;height:auto;display:block}
        pre{background:#f5f7f9;border-radius:6px;padding:12px;font-size:13px;line-height:1.35;overflow:auto}
        """

    /// What plots need wherever they stand.
    private static let plotStyle = """
        .title{font-size:14px;font-weight:600;fill:#1d2730}.tick{font-size:11px;fill:#46525e}.label{font-size:12px;
        fill:#46525e}.grid{stroke:#e8ecf0}.axis{stroke:#7a8691}.mark{stroke:#1d2730;stroke-dasharray:4 3}
        .halo{paint-order:stroke;stroke:#fff;stroke-width:3px;font-weight:600}
        """
}
