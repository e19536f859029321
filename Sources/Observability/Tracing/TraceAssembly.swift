import Plots

/// Makes one timeline of the spans of several services; a pure value.
///
/// Every service is a process: its layer loop, or its calls, and its requests on lanes of their own. Time on the
/// simulated device has a process of its own, whose clock begins at 0 and runs only while the device computes. When one
/// trace was asked for, a first process shows it alone: everything that was done for it, in any service, each span within
/// the one it served. Arrows lead from each call, as its caller sees it, to the service that answers it.
public struct TraceAssembly: Sendable {
    private let reports: [SpanReport]
    private let trace: TraceContext?
    private let origin: Int64

    /// An assembly of reports whose clocks agree; `trace` is shown alone as well.
    public init(reports: [SpanReport], trace: TraceContext?) {
        self.reports = Self.ordered(reports)
        self.trace = trace
        origin = reports.flatMap(\.spans).map(\.start).min() ?? 0
    }

    /// Reports in the order in which the services call each other.
    public static func ordered(_ reports: [SpanReport]) -> [SpanReport] {
        reports.sorted { order($0) < order($1) }
    }

    private static func order(_ report: SpanReport) -> (Int, String) {
        (["gateway", "attention", "experts", "sampler"].firstIndex(of: report.service) ?? 4, report.instance)
    }

    /// The timeline in Chrome's format.
    public func chromeTrace() -> [UInt8] {
        var writer = ChromeTraceWriter()
        var arrows = CallArrows()
        var process = 1
        if let trace {
            writer.process(process, name: "request \(trace.id)")
            write(SpanLayout.nest(requestSpans(trace).sorted(by: Self.isBefore)), process, &writer) {
                $0 == 0 ? "everything done for it" : "at the same time \($0)"
            }
        }
        for report in reports {
            process += 1
            writer.process(process, name: "\(report.service) (\(report.instance))")
            let own = SpanLayout.place(report.spans.filter { $0.request > 0 })
            write(own, process, &writer, firstLane: 16) {
                report.service == "gateway" || report.service == "attention" ? "requests \($0)" : "calls \($0)"
            }
            let loop = SpanLayout.nest(report.spans.filter { $0.request == 0 }.sorted(by: Self.isBefore))
            write(loop, process, &writer) { $0 == 0 ? "layer loop" : "layer loop \($0)" }
            arrows.add(own, of: report.service, process, firstLane: 16)
            arrows.add(loop, of: report.service, process, firstLane: 1)
        }
        arrows.write(to: &writer, origin: origin)
        for report in reports where report.spans.contains(where: { $0.simulatedPicoseconds > 0 }) {
            process += 1
            writeSimulated(report, process, &writer)
        }
        return writer.json
    }

    private static func isBefore(_ one: Span, _ other: Span) -> Bool {
        (one.start, -one.end, depth(one)) < (other.start, -other.end, depth(other))
    }

    /// Of spans with the same times the outer one.
    private static func depth(_ span: Span) -> Int {
        switch span.name {
        case .request: 0
        case .answering: 1
        case .completion: 2
        case .step: 4
        case .attention, .experts, .sampler: 5
        case .call: 6
        case .read, .compute, .reply: 7
        default: 3
        }
    }

    // MARK: One request

    /// What was done for a trace: its own spans, the layers and calls of the steps it took part in, and those calls as
    /// the services that answered them saw them.
    package func requestSpans(_ trace: TraceContext) -> [Span] {
        func isOwn(_ span: Span) -> Bool { span.trace.high == trace.high && span.trace.low == trace.low }
        var result: [Span] = []
        var calls: [Span] = []
        for report in reports where report.service == "attention" {
            let own = report.spans.filter { isOwn($0) && $0.request > 0 }
            result += own
            var leads: [Int64: TraceContext] = [:]
            for span in own where span.name == .step { leads[span.step] = span.lead }
            let parts = report.spans.filter { span in
                guard span.request == 0, span.name != .step, let lead = leads[span.step] else { return false }
                return lead.high == span.trace.high && lead.low == span.trace.low
            }
            result += parts
            calls += parts.filter { $0.name == .experts || $0.name == .sampler }
        }
        for report in reports where report.service == "gateway" {
            // The last two overlap what the instance does meanwhile; the gateway's own lanes show them.
            result += report.spans.filter { isOwn($0) && $0.name != .prefill && $0.name != .streaming }
        }
        for report in reports where report.service == "experts" || report.service == "sampler" {
            result += answered(calls.filter { $0.name.rawValue == report.service }, report)
        }
        return result
    }

    /// The spans of a service in whose middle a call was made to it, cut to that call.
    private func answered(_ calls: [Span], _ report: SpanReport) -> [Span] {
        let sorted = calls.sorted { $0.start < $1.start }
        return report.spans.compactMap { span in
            let middle = span.start + (span.end - span.start) / 2
            var low = 0
            var high = sorted.count
            while low < high {
                let index = (low + high) / 2
                if sorted[index].start <= middle { low = index + 1 } else { high = index }
            }
            guard low > 0, case let call = sorted[low - 1], middle <= call.end, call.layer == span.layer,
                call.trace.high == span.trace.high, call.trace.low == span.trace.low
            else { return nil }
            var inner = span
            inner.start = max(span.start, call.start)
            inner.end = min(span.end, call.end)
            return inner
        }
    }

    // MARK: Writing

    private func write(
        _ placed: [SpanLayout.Placed], _ process: Int, _ writer: inout ChromeTraceWriter, firstLane: Int = 1,
        _ name: (Int) -> String
    ) {
        for lane in Set(placed.map(\.lane)).sorted() { writer.thread(process, firstLane + lane, name: name(lane)) }
        for item in placed { write(item.span, process, firstLane + item.lane, item.span.start - origin, &writer) }
    }

    private func write(
        _ span: Span, _ process: Int, _ thread: Int, _ start: Int64, _ writer: inout ChromeTraceWriter
    ) {
        writer.span(
            Self.title(span), process, thread, start: start, duration: span.end - span.start,
            [
                "trace": .text(span.trace.isNone ? "" : span.trace.id),
                "request": .number(Int64(clamping: span.request)),
                "step": .number(span.step), "layer": .number(Int64(span.layer)), "rows": .number(Int64(span.rows)),
                "simulated_ps": .number(Int64(clamping: span.simulatedPicoseconds)),
            ])
    }

    /// "experts layer 3", "step 17", "prefill".
    private static func title(_ span: Span) -> String {
        if span.layer >= 0 { return "\(span.name.rawValue) layer \(span.layer)" }
        return span.name == .step ? "step \(span.step)" : span.name.rawValue
    }

    /// Calls one after the other, each as long as it takes on the simulated device.
    private func writeSimulated(_ report: SpanReport, _ process: Int, _ writer: inout ChromeTraceWriter) {
        writer.process(process, name: "\(report.service) (\(report.instance)), simulated clock")
        writer.thread(process, 1, name: "device")
        var picoseconds: UInt64 = 0
        for span in report.spans.sorted(by: Self.isBefore) where span.name == .call && span.simulatedPicoseconds > 0 {
            let (end, overflow) = picoseconds.addingReportingOverflow(span.simulatedPicoseconds)
            guard !overflow, end <= UInt64(Int64.max) else { return }
            writer.span(
                Self.title(span), process, 1, start: Int64(picoseconds / 1000),
                duration: Int64(end / 1000) - Int64(picoseconds / 1000),
                [
                    "trace": .text(span.trace.isNone ? "" : span.trace.id), "layer": .number(Int64(span.layer)),
                    "rows": .number(Int64(span.rows)), "wall_ns": .number(span.end - span.start),
                ])
            picoseconds = end
        }
    }
}
