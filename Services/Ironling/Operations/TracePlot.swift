import Observability
import Plots

/// What the services did for one request, or in some seconds, as a picture: time to the right, lanes for what every process
/// was at; below, the median step of the busiest instance enlarged.
struct TracePlot {
    private let reports: [SpanReport]
    private let trace: TraceContext?

    /// Reports in the order in which the services call each other; clocks agree.
    init(_ reports: [SpanReport], _ trace: TraceContext?) {
        self.reports = TraceAssembly.ordered(reports)
        self.trace = trace
    }

    /// What is drawn, in the order of the legend: phases of a request, parts of a step, parts of a call.
    private static let phases: [SpanName] = [
        .tokenizing, .queued, .connecting, .receiving, .prefill, .handingOff, .decode, .streaming,
    ]
    private static let parts: [SpanName] = [.attention, .experts, .sampler]
    private static let work: [SpanName] = [.read, .compute, .reply]

    private static func colour(_ name: SpanName) -> String {
        switch name {
        case .tokenizing: "#332288"
        case .queued: "#999999"
        case .connecting: "#555555"
        case .receiving: "#56B4E9"
        case .prefill: "#E69F00"
        case .handingOff: "#CC79A7"
        case .decode: "#009E73"
        case .streaming: "#DDCC77"
        case .attention: "#0072B2"
        case .experts: "#D55E00"
        case .sampler: "#882255"
        case .compute: "#222222"
        default: "#BBBBBB"
        }
    }

    /// The picture as SVG; nil when nothing of it would be seen.
    func svg() -> String? {
        guard let whole = range(reports.flatMap(\.spans)) else { return nil }
        let overview = plot(whole, showsPhases: trace != nil)
        let enlarged = medianStep.map { plot($0.start..<max($0.start + 1, $0.end), showsPhases: false) }
        let legend = legend
        let top = 92.0
        let second = top + overview.height + 44
        let bottom = (enlarged.map { second + $0.height } ?? top + overview.height) + 12
        var drawing = SVGDrawing(width: LanePlot.width, height: bottom + LanePlot.legendHeight(legend.count) + 12)
        drawing.text(24, 30, title, size: 18, isBold: true)
        drawing.text(
            24, 52, "black: a service computes for a call; white on a layer loop: nothing to do, or the loop itself",
            size: 12, colour: "#444444")
        drawing.text(24, top - 14, "everything", size: 14, isBold: true)
        overview.draw(&drawing, top: top)
        if let enlarged, let step = medianStep {
            drawing.text(24, second - 14, "step \(step.step)\(Self.rows(step)) enlarged", size: 14, isBold: true)
            enlarged.draw(&drawing, top: second)
        }
        LanePlot.drawLegend(&drawing, top: bottom, legend)
        return drawing.document()
    }

    private var title: String {
        let tokens = reports.filter { $0.service == "attention" }.flatMap(\.spans).count { Self.isLoopStep($0) }
        return (trace.map { "Request \($0.id)" } ?? "All services") + ": \(tokens) steps in "
            + "\(reports.count { $0.service == "attention" }) attention and "
            + "\(reports.count { $0.service == "experts" }) experts processes"
    }

    private static func rows(_ step: Span) -> String {
        step.rows < 0 ? "" : ", \(step.rows) \(step.rows == 1 ? "row" : "rows"),"
    }

    private static func isLoopStep(_ span: Span) -> Bool { span.name == .step && span.request == 0 }

    private func range(_ spans: [Span]) -> Range<Int64>? {
        guard let start = spans.map(\.start).min(), let end = spans.map(\.end).max(), start < end else { return nil }
        return start..<end
    }

    /// Of the instance with most steps the one of median length.
    private var medianStep: Span? {
        let steps = reports.map { $0.spans.filter(Self.isLoopStep) }.max { $0.count < $1.count } ?? []
        let sorted = steps.sorted { ($0.end - $0.start, $0.start) < ($1.end - $1.start, $1.start) }
        return sorted.isEmpty ? nil : sorted[sorted.count / 2]
    }

    /// Names that are seen, those of one colour together.
    private var legend: [(name: String, colour: String)] {
        let all = (trace == nil ? [] : Self.phases) + Self.parts + Self.work
        let seen = Set(reports.flatMap(\.spans).map(\.name))
        return all.filter(seen.contains).reduce(into: []) { entries, name in
            let colour = Self.colour(name)
            if let index = entries.firstIndex(where: { $0.colour == colour }) {
                entries[index].name += ", " + name.rawValue
            } else {
                entries.append((name.rawValue, colour))
            }
        }
    }

    private func plot(_ time: Range<Int64>, showsPhases: Bool) -> LanePlot {
        func bars(_ spans: [Span], _ names: [SpanName]) -> [LanePlot.Bar] {
            spans.filter { names.contains($0.name) }.map { span in
                // From the start of the picture, where a difference of nanoseconds is still exact.
                LanePlot.Bar(
                    time: Double(span.start - time.lowerBound)..<Double(span.end - time.lowerBound),
                    colour: Self.colour(span.name))
            }
        }
        var lanes: [LanePlot.Lane] = []
        for report in reports {
            switch report.service {
            case "gateway":
                guard showsPhases else { continue }
                lanes.append(LanePlot.Lane(name: report.instance, bars: bars(report.spans, Self.phases)))
            case "attention":
                let requests = report.spans.filter { $0.request > 0 }
                if showsPhases {
                    lanes.append(
                        LanePlot.Lane(
                            name: report.instance, bars: bars(requests, Self.phases.filter { $0 != .streaming })))
                }
                let loop = report.spans.filter { $0.request == 0 }
                lanes.append(
                    LanePlot.Lane(
                        name: showsPhases ? "layer loop" : report.instance, bars: bars(loop, Self.parts)))
            default: lanes.append(LanePlot.Lane(name: report.instance, bars: bars(report.spans, Self.work)))
            }
        }
        return LanePlot(
            lanes: lanes, time: 0..<Double(time.upperBound - time.lowerBound), unitsPerMillisecond: 1e6)
    }
}
