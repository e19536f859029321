import FusedMoE
import Plots
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
        let phases = phases
        let plot = LanePlot(
            lanes: lanes.map { lane in
                LanePlot.Lane(
                    name: lane.name,
                    bars: lane.bars.map { bar in
                        LanePlot.Bar(
                            time: Double(bar.time.lowerBound)..<Double(bar.time.upperBound),
                            colour: colour(of: bar, in: lane, phases))
                    })
            }, time: 0..<end, unitsPerMillisecond: 1e9)
        let legend = phases.enumerated().map { index, phase in
            (phase, SVGDrawing.palette[index % SVGDrawing.palette.count])
        }
        let top = 78.0
        let height = top + plot.height + 12 + LanePlot.legendHeight(phases.count) + 12
        var drawing = SVGDrawing(width: LanePlot.width, height: height)
        drawing.text(24, 30, title, size: 18, isBold: true)
        drawing.text(
            24, 52, "above: what the core does, one thing at a time; below: copies that fly beside it", size: 12,
            colour: "#444444")
        plot.draw(&drawing, top: top)
        LanePlot.drawLegend(&drawing, top: top + plot.height + 12, legend)
        return drawing.document()
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
