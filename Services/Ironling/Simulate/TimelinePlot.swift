import FusedMoE
import TPU

/// What the engines of one device and the busiest link do when, as a picture: time to the right, a lane per engine.
struct TimelinePlot {
    private struct Lane {
        let name: String
        var bars: [Timeline.Bar]
    }

    private let title: String
    private let lanes: [Lane]
    private let end: Double

    private static let (left, right, width) = (210.0, 1180.0, 1200.0)
    private static let (top, laneHeight, laneStep) = (78.0, 18.0, 26.0)

    /// The device is the first of the chip that the busiest link leaves; nil when no timeline was recorded.
    init?(_ report: KernelReport) {
        guard let timeline = report.run.result.timeline else { return nil }
        let call = report.call
        let busiest = report.run.result.busiestLink
        let shown = min(2 * (busiest?.chip ?? 0), call.problem.devices - 1)
        lanes =
            Self.merged(timeline.lanes(device: shown))
            + Self.merged(timeline.linkLanes().filter { $0.name == "ICI \(busiest?.name ?? "")" })
        end = Double(report.run.latency)
        title =
            "Fused MoE \(call.kernel.rawValue.uppercased()), \(call.problem.tokens) tokens on "
            + "\(call.problem.devices) devices of \(call.topology.name): device \(shown) (simulated)"
    }

    /// Without scales and routing rows; the copies into one slot of W1, W3 and W2 share a lane.
    private static func merged(_ lanes: [Timeline.Lane]) -> [Lane] {
        var merged: [Lane] = []
        for lane in lanes where !lane.name.contains("scales of") && !lane.name.contains("→ routing") {
            var name = lane.name
            for weights in ["W1", "W3", "W2"] where name.hasPrefix("HBM → \(weights) [") {
                name = "HBM → weights " + name.suffix(3)
            }
            if let index = merged.firstIndex(where: { $0.name == name }) {
                merged[index].bars += lane.bars
            } else {
                merged.append(Lane(name: name, bars: lane.bars))
            }
        }
        return merged
    }

    /// Parts of the program in the order they first appear.
    private var phases: [String] {
        var phases: [String] = []
        for bar in lanes.first?.bars ?? [] where !phases.contains(bar.title) { phases.append(bar.title) }
        return phases
    }

    /// The picture as SVG.
    func svg() -> String {
        let bottom = Self.top + Double(lanes.count) * Self.laneStep
        let phases = phases
        let legend = bottom + 58
        let height = legend + Double((phases.count + 5) / 6) * 22 + 12
        var drawing = SVGDrawing(width: Self.width, height: height)
        drawing.text(24, 30, title, size: 18, isBold: true)
        drawing.text(
            24, 52, "above: what the core does, one thing at a time; below: copies that fly beside it", size: 12,
            colour: "#444444")
        drawAxis(&drawing, bottom)
        for (row, lane) in lanes.enumerated() {
            draw(lane, &drawing, at: Self.top + Double(row) * Self.laneStep, phases)
        }
        for (index, phase) in phases.enumerated() {
            let (x, y) = (Self.left + Double(index % 6) * 165, legend + Double(index / 6) * 22)
            drawing.rectangle(x, y, 13, 13, colour: SVGDrawing.palette[index % SVGDrawing.palette.count])
            drawing.text(x + 19, y + 11, phase, size: 12)
        }
        return drawing.document()
    }

    private var scale: Double { (Self.right - Self.left) / max(1, end) }

    private func drawAxis(_ drawing: inout SVGDrawing, _ bottom: Double) {
        let milliseconds = end * 1e-9
        let step = SVGDrawing.tickStep(milliseconds)
        for index in 0...Int(milliseconds / step) {
            let x = Self.left + Double(index) * step * 1e9 * scale
            drawing.line(x, Self.top - 6, x, bottom, colour: "#DDDDDD")
            drawing.text(x, bottom + 16, SVGDrawing.tick(Double(index) * step, step), size: 12, anchor: "middle")
        }
        drawing.text((Self.left + Self.right) / 2, bottom + 36, "time (ms)", size: 13, anchor: "middle")
    }

    /// Bars closer together than half a point are drawn as one.
    private func draw(_ lane: Lane, _ drawing: inout SVGDrawing, at y: Double, _ phases: [String]) {
        drawing.text(Self.left - 10, y + 14, lane.name, size: 12, anchor: "end")
        var pending: (x: Double, end: Double, colour: String)?
        for bar in lane.bars.sorted(by: { $0.time.lowerBound < $1.time.lowerBound }) {
            let x = Self.left + Double(bar.time.lowerBound) * scale
            let end = Self.left + Double(bar.time.upperBound) * scale
            let colour = colour(of: bar, in: lane, phases)
            if let last = pending, last.colour == colour, x - last.end < 0.5 {
                pending = (last.x, max(last.end, end), colour)
                continue
            }
            if let last = pending {
                drawing.rectangle(last.x, y, last.end - last.x, Self.laneHeight, colour: last.colour)
            }
            pending = (x, end, colour)
        }
        if let last = pending { drawing.rectangle(last.x, y, last.end - last.x, Self.laneHeight, colour: last.colour) }
    }

    private func colour(of bar: Timeline.Bar, in lane: Lane, _ phases: [String]) -> String {
        switch lane.name {
        case "program": SVGDrawing.palette[(phases.firstIndex(of: bar.title) ?? 0) % SVGDrawing.palette.count]
        case "waiting": "#BBBBBB"
        case let name where name.hasSuffix(" unit"): "#222222"
        case let name where name.hasPrefix("from peers"): "#D55E00"
        case let name where name.hasPrefix("ICI"): "#CC79A7"
        default: "#0072B2"
        }
    }
}
