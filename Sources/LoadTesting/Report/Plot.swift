import Foundation

/// A plot as inline SVG: axes with round numbers, and lines, bars or points in them.
struct Plot {
    /// One set of data.
    struct Series {
        enum Style { case line, bars, points }

        let name: String
        let color: String
        let style: Style
        /// Points; for bars, x is the left edge.
        let points: [(x: Double, y: Double)]
        /// Width of bars, in x.
        var barWidth = 0.0
    }

    /// A vertical line with a name.
    struct Mark {
        let x: Double
        let name: String
    }

    static let (width, height) = (560.0, 300.0)
    private static let (left, right, top, bottom) = (58.0, 16.0, 34.0, 46.0)

    let title: String
    let xLabel: String
    let yLabel: String
    let series: [Series]
    var marks: [Mark] = []
    /// The end of the x axis; nil takes the largest x.
    var xEnd: Double?
    /// The end of the y axis; nil takes a round number above the largest y.
    var yEnd: Double?

    private var xTop: Double {
        max(xEnd ?? series.flatMap { line in line.points.map { $0.x + line.barWidth } }.max() ?? 1, 1e-9)
    }

    /// The SVG element.
    var svg: String {
        let yTicks = Self.ticks(to: yEnd ?? max(series.flatMap { $0.points.map(\.y) }.max() ?? 1, 1e-9) * 1.05)
        let yTop = yTicks.last ?? 1
        var parts = [
            "<svg viewBox=\"0 0 \(Int(Self.width)) \(Int(Self.height))\" role=\"img\" aria-label=\"\(Text.escaped(title))\">",
            "<text class=\"title\" x=\"\(Self.left)\" y=\"18\">\(Text.escaped(title))</text>",
        ]
        parts += axes(yTicks, yTop)
        parts += series.flatMap { draw($0, yTop) }
        parts += marks.enumerated().flatMap { index, mark in draw(mark, row: index) }
        parts += legend()
        return (parts + ["</svg>"]).joined(separator: "\n")
    }

    private func place(_ x: Double, _ y: Double, _ yTop: Double) -> (x: Double, y: Double) {
        (
            Self.left + min(1, x / xTop) * (Self.width - Self.left - Self.right),
            Self.height - Self.bottom - y / yTop * (Self.height - Self.top - Self.bottom)
        )
    }

    private func axes(_ yTicks: [Double], _ yTop: Double) -> [String] {
        let base = Self.height - Self.bottom
        var parts: [String] = []
        for tick in yTicks {
            let y = n(place(0, tick, yTop).y)
            parts.append(
                "<line class=\"grid\" x1=\"\(Self.left)\" x2=\"\(Self.width - Self.right)\" y1=\"\(y)\" y2=\"\(y)\"/>")
            parts.append(
                "<text class=\"tick\" text-anchor=\"end\" x=\"\(Self.left - 6)\" y=\"\(y)\" dy=\"4\">\(Text.number(tick))</text>"
            )
        }
        for tick in Self.ticks(to: xTop) where tick <= xTop * 1.0001 {
            let x = n(place(tick, 0, yTop).x)
            parts.append("<line class=\"axis\" x1=\"\(x)\" x2=\"\(x)\" y1=\"\(base)\" y2=\"\(base + 4)\"/>")
            parts.append(
                "<text class=\"tick\" text-anchor=\"middle\" x=\"\(x)\" y=\"\(base + 17)\">\(Text.number(tick))</text>")
        }
        parts.append(
            "<line class=\"axis\" x1=\"\(Self.left)\" x2=\"\(Self.width - Self.right)\" y1=\"\(base)\" y2=\"\(base)\"/>"
        )
        let middle = (Self.left + Self.width - Self.right) / 2
        parts.append(
            "<text class=\"label\" text-anchor=\"middle\" x=\"\(middle)\" y=\"\(Self.height - 8)\">\(Text.escaped(xLabel))</text>"
        )
        let height = (Self.top + base) / 2
        parts.append(
            "<text class=\"label\" text-anchor=\"middle\" transform=\"translate(14 \(height)) rotate(-90)\">"
                + "\(Text.escaped(yLabel))</text>")
        return parts
    }

    private func draw(_ series: Series, _ yTop: Double) -> [String] {
        switch series.style {
        case .line:
            let points = series.points.map { point in
                let place = place(point.x, point.y, yTop)
                return "\(n(place.x)),\(n(place.y))"
            }
            return [
                "<polyline fill=\"none\" stroke=\"\(series.color)\" stroke-width=\"2\" points=\"\(points.joined(separator: " "))\"/>"
            ]
        case .points:
            return series.points.map { point in
                let place = place(point.x, point.y, yTop)
                return
                    "<circle cx=\"\(n(place.x))\" cy=\"\(n(place.y))\" r=\"2.5\" fill=\"\(series.color)\" fill-opacity=\"0.55\"/>"
            }
        case .bars:
            return series.points.map { point in
                let (from, to) = (place(point.x, 0, yTop), place(point.x + series.barWidth, point.y, yTop))
                return "<rect x=\"\(n(from.x))\" y=\"\(n(to.y))\" width=\"\(n(max(0.5, to.x - from.x - 0.5)))\" "
                    + "height=\"\(n(from.y - to.y))\" fill=\"\(series.color)\"/>"
            }
        }
    }

    /// Names stand below each other, so that marks close together stay readable.
    private func draw(_ mark: Mark, row: Int) -> [String] {
        let x = place(mark.x, 0, 1).x
        let isRight = x > Self.width * 0.7
        return [
            "<line class=\"mark\" x1=\"\(n(x))\" x2=\"\(n(x))\" y1=\"\(Self.top)\" y2=\"\(Self.height - Self.bottom)\"/>",
            "<text class=\"tick halo\" x=\"\(n(x + (isRight ? -4 : 4)))\" y=\"\(n(Self.top + 11 + Double(row) * 14))\" "
                + "text-anchor=\"\(isRight ? "end" : "start")\">\(Text.escaped(mark.name))</text>",
        ]
    }

    private func legend() -> [String] {
        guard series.count > 1 else { return [] }
        var x = Self.width - Self.right
        return series.reversed().flatMap { line -> [String] in
            x -= Double(line.name.count) * 6.6 + 24
            return [
                "<rect x=\"\(n(x))\" y=\"9\" width=\"10\" height=\"10\" fill=\"\(line.color)\"/>",
                "<text class=\"tick\" x=\"\(n(x + 14))\" y=\"18\">\(Text.escaped(line.name))</text>",
            ]
        }
    }

    private func n(_ value: Double) -> String { Text.number(value, digits: 2) }

    /// About five round numbers from 0 to at least `end`.
    static func ticks(to end: Double) -> [Double] {
        let rough = end / 5
        let power = pow(10, floor(log10(rough)))
        let step = ([1, 2, 5, 10].first { $0 * power >= rough * 0.999 } ?? 10) * power
        return (0...Int((end / step).rounded(.up))).map { Double($0) * step }
    }
}
