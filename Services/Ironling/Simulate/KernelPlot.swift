import Foundation
import Plots

/// Kernels side by side as a picture: where each one's time goes, and how busy it keeps the engines.
struct KernelPlot {
    /// One kernel.
    struct Kernel {
        let name: String
        let milliseconds: Double
        /// Visible parts in the order of `KernelPlot.parts`; they add up to `milliseconds`.
        let parts: [Double]
        /// Busy share of every engine in the order of `KernelPlot.engines`, 0…1.
        let busy: [Double]
    }

    let title: String
    let subtitle: String
    let parts: [String]
    let engines: [String]
    let kernels: [Kernel]

    private static let (left, right, width) = (150.0, 880.0, 960.0)

    /// The picture as SVG.
    func svg() -> String {
        let barTop = 96.0
        let axis = barTop + Double(kernels.count) * 62 + 4
        let legend = axis + 62
        let legendRows = (parts.count + 3) / 4
        let engineTop = legend + Double(legendRows) * 24 + 58
        let height = engineTop + Double(engines.count) * Double(kernels.count * 18 + 14) + 62
        var drawing = SVGDrawing(width: Self.width, height: height)
        drawing.text(24, 34, title, size: 20, isBold: true)
        drawing.text(24, 58, subtitle, size: 13, colour: "#444444")
        drawing.text(24, 84, "Where the call's time goes", size: 14, isBold: true)
        drawTimes(&drawing, top: barTop, axis: axis)
        drawLegend(&drawing, top: legend)
        drawing.text(24, engineTop - 14, "How busy the engines are meanwhile", size: 14, isBold: true)
        drawEngines(&drawing, top: engineTop)
        return drawing.document()
    }

    private func drawTimes(_ drawing: inout SVGDrawing, top: Double, axis: Double) {
        let step = SVGDrawing.tickStep((kernels.map(\.milliseconds).max() ?? 1) * 1.08)
        let end = step * ((kernels.map(\.milliseconds).max() ?? 1) * 1.08 / step).rounded(.up)
        let scale = (Self.right - Self.left) / end
        for tick in stride(from: 0, through: end + step / 2, by: step) {
            let x = Self.left + tick * scale
            drawing.line(x, top - 6, x, axis, colour: "#DDDDDD")
            drawing.text(x, axis + 18, SVGDrawing.tick(tick, step), size: 12, anchor: "middle")
        }
        drawing.text((Self.left + Self.right) / 2, axis + 38, "time (ms)", size: 13, anchor: "middle")
        for (row, kernel) in kernels.enumerated() {
            let y = top + Double(row) * 62
            drawing.text(Self.left - 12, y + 28, kernel.name, size: 14, anchor: "end", isBold: true)
            var x = Self.left
            for (index, part) in kernel.parts.enumerated() where part > 0 {
                drawing.rectangle(x, y, part * scale, 44, colour: Self.colour(index))
                if part * scale > 46 {
                    drawing.text(
                        x + part * scale / 2, y + 27, String(format: "%.2f", part), size: 12, anchor: "middle",
                        colour: Self.textColour(index))
                }
                x += part * scale
            }
            drawing.text(
                x + 8, y + 28, String(format: kernel.milliseconds < 1 ? "%.3f ms" : "%.2f ms", kernel.milliseconds),
                size: 13, isBold: true)
        }
    }

    private func drawLegend(_ drawing: inout SVGDrawing, top: Double) {
        for (index, part) in parts.enumerated() {
            let (x, y) = (Self.left + Double(index % 4) * 190, top + Double(index / 4) * 24)
            drawing.rectangle(x, y, 14, 14, colour: Self.colour(index))
            drawing.text(x + 20, y + 12, part, size: 12)
        }
    }

    private func drawEngines(_ drawing: inout SVGDrawing, top: Double) {
        let group = Double(kernels.count * 18 + 14)
        let bottom = top + Double(engines.count) * group
        let scale = (Self.right - Self.left) / 100
        for tick in stride(from: 0, through: 100, by: 20) {
            let x = Self.left + Double(tick) * scale
            drawing.line(x, top - 4, x, bottom, colour: "#DDDDDD")
            drawing.text(x, bottom + 18, "\(tick)", size: 12, anchor: "middle")
        }
        drawing.text(
            (Self.left + Self.right) / 2, bottom + 38, "busy share of the call (%)", size: 13, anchor: "middle")
        for (index, engine) in engines.enumerated() {
            let y = top + Double(index) * group
            drawing.text(Self.left - 12, y + group / 2 - 2, engine, size: 13, anchor: "end")
            for (row, kernel) in kernels.enumerated() {
                let share = min(1, kernel.busy[index]) * 100
                let barY = y + Double(row) * 18
                drawing.rectangle(Self.left, barY, share * scale, 15, colour: row == 0 ? "#999999" : "#0072B2")
                drawing.text(
                    Self.left + share * scale + 6, barY + 12, "\(kernel.name) \(String(format: "%.0f %%", share))",
                    size: 11)
            }
        }
    }

    private static func colour(_ index: Int) -> String { SVGDrawing.palette[index % SVGDrawing.palette.count] }

    private static func textColour(_ index: Int) -> String {
        ["#0072B2", "#D55E00", "#555555", "#009E73"].contains(colour(index)) ? "#FFFFFF" : "#111111"
    }
}
