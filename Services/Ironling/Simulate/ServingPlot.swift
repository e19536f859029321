import DeploymentModel
import Foundation
import Plots

/// The serving figures as a picture: ours beside published, every pair scaled to the published bar, and where a decode
/// step and a prefill step go.
struct ServingPlot {
    private let validation: ServingValidation
    private let steps: [(name: String, cost: StepCost)]

    private static let (left, right, width) = (230.0, 880.0, 960.0)
    private static let (ours, published) = ("#0072B2", "#999999")
    private static let colours = [
        "#D55E00", "#E69F00", "#CC79A7", "#F0E442", "#56B4E9", "#999999", "#0072B2", "#009E73", "#555555",
    ]

    init(_ validation: ServingValidation) {
        self.validation = validation
        steps = validation.steps
    }

    /// The picture as SVG.
    func svg() -> String {
        let rows = validation.comparisons.filter { ![.exact, .sign].contains($0.figure.use) }
        let top = 92.0
        let bottom = top + Double(rows.count) * 46
        let stepTop = bottom + 96
        let height = stepTop + Double(steps.count) * 58 + 96
        var drawing = SVGDrawing(width: Self.width, height: height)
        drawing.text(
            24, 34, "Ling-2.6-1T on sixteen TPU v7x chips, simulated: ours against published", size: 20, isBold: true)
        drawing.text(
            24, 58, "every pair is scaled to its published bar; host time per step and one H200 efficiency are fitted",
            size: 13, colour: "#444444")
        drawPairs(&drawing, rows, top: top, bottom: bottom)
        drawing.text(24, stepTop - 22, "Where a step's time goes (ms)", size: 14, isBold: true)
        drawSteps(&drawing, top: stepTop)
        return drawing.document()
    }

    private func drawPairs(
        _ drawing: inout SVGDrawing, _ rows: [ServingValidation.Comparison], top: Double, bottom: Double
    ) {
        let scale = (Self.right - Self.left) / 1.4
        for tick in stride(from: 0, through: 125, by: 25) {
            let x = Self.left + Double(tick) / 100 * scale
            drawing.line(x, top - 8, x, bottom, colour: tick == 100 ? "#666666" : "#DDDDDD")
            drawing.text(x, bottom + 16, "\(tick)", size: 12, anchor: "middle")
        }
        drawing.text(
            (Self.left + Self.right) / 2, bottom + 36, "percent of the published number", size: 13, anchor: "middle")
        for (index, row) in rows.enumerated() {
            let y = top + Double(index) * 46
            let figure = row.figure
            drawing.text(Self.left - 12, y + 16, Self.title(figure), size: 13, anchor: "end", isBold: true)
            drawing.text(
                Self.left - 12, y + 32, figure.use == .calibrate ? "calibrated" : "predicted", size: 11, anchor: "end",
                colour: "#555555")
            let share = max(0, min(1.35, row.ours / figure.published))
            drawing.rectangle(Self.left, y, scale, 16, colour: Self.published)
            drawing.text(
                Self.left + scale + 6, y + 13, "published \(Self.number(figure.published, figure.unit))", size: 11)
            drawing.rectangle(Self.left, y + 18, share * scale, 16, colour: Self.ours)
            drawing.text(
                Self.left + max(share, 0.02) * scale + 6, y + 31, "ours \(Self.number(row.ours, figure.unit))",
                size: 11,
                isBold: true)
        }
    }

    private func drawSteps(_ drawing: inout SVGDrawing, top: Double) {
        let shown = Component.allCases.filter { component in
            steps.contains { Double($0.cost[component]) > 0.02 * Double($0.cost.total) }
        }
        for (row, step) in steps.enumerated() {
            let y = top + Double(row) * 58
            let total = Double(step.cost.total) * 1e-9
            drawing.text(Self.left - 12, y + 24, step.name, size: 13, anchor: "end", isBold: true)
            let scale = (Self.right - Self.left - 70) / total
            var x = Self.left
            for (index, component) in shown.enumerated() {
                let part = Double(step.cost[component]) * 1e-9
                drawing.rectangle(x, y, part * scale, 36, colour: Self.colours[index % Self.colours.count])
                if part * scale > 40 {
                    drawing.text(
                        x + part * scale / 2, y + 23, String(format: part < 10 ? "%.1f" : "%.0f", part), size: 12,
                        anchor: "middle", colour: Self.textColour(index))
                }
                x += part * scale
            }
            let rest = total - (x - Self.left) / scale
            drawing.rectangle(x, y, rest * scale, 36, colour: "#DDDDDD")
            drawing.text(
                x + rest * scale + 8, y + 23, String(format: total < 100 ? "%.1f ms" : "%.0f ms", total), size: 13,
                isBold: true)
        }
        let legend = top + Double(steps.count) * 58 + 8
        for (index, name) in (shown.map(\.rawValue) + ["other"]).enumerated() {
            let (x, y) = (Self.left + Double(index % 4) * 165, legend + Double(index / 4) * 24)
            let colour = index < shown.count ? Self.colours[index % Self.colours.count] : "#DDDDDD"
            drawing.rectangle(x, y, 14, 14, colour: colour)
            drawing.text(x + 20, y + 12, name, size: 12)
        }
    }

    private static func textColour(_ index: Int) -> String {
        ["#0072B2", "#555555", "#D55E00", "#009E73"].contains(colours[index % colours.count]) ? "#FFFFFF" : "#111111"
    }

    private static func title(_ figure: ServingFigure) -> String {
        switch figure.id {
        case "e2e-1024-c32": "1024/1024, c32: \(figure.metric)"
        case "e2e-prefill-gain": "prefill gain, V1 to V2"
        case "e2e-decode-gain": "decode gain at \(figure.metric.suffix(3))"
        default: "over 16 H200 at \(figure.metric.suffix(3))"
        }
    }

    private static func number(_ value: Double, _ unit: String) -> String {
        switch unit {
        case "percent": String(format: "%+.1f %%", value)
        case "ratio": String(format: "%.2f×", value)
        default: String(format: value < 100 ? "%.2f " : "%.0f ", value) + unit
        }
    }
}
