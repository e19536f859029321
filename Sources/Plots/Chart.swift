import Foundation

/// A chart as inline SVG: axes with round numbers, and lines, bars or points in them.
public struct Chart {
    /// One set of data.
    public struct Series {
        /// How points are drawn.
        public enum Style { case line, bars, points }

        let name: String
        let color: String
        let style: Style
        let points: [(x: Double, y: Double)]
        let barWidth: Double

        /// Data under a name.
        ///
        /// - points: of bars, x is the left edge.
        /// - barWidth: width of bars, in x.
        public init(
            name: String, color: String, style: Style, points: [(x: Double, y: Double)], barWidth: Double = 0
        ) {
            (self.name, self.color, self.style) = (name, color, style)
            (self.points, self.barWidth) = (points, barWidth)
        }
    }

    /// A vertical line with a name.
    public struct Mark {
        let x: Double
        let name: String

        /// A line at `x`.
        public init(x: Double, name: String) { (self.x, self.name) = (x, name) }
    }

    /// Points of a chart.
    public static let (width, height) = (560.0, 300.0)
    private static let (left, right, top, bottom) = (58.0, 16.0, 34.0, 46.0)

    private let title: String
    private let xLabel: String
    private let yLabel: String
    private let series: [Series]
    private let marks: [Mark]
    private let xEnd: Double?
    private let yEnd: Double?

    /// A chart.
    ///
    /// - xEnd: the end of the x axis; nil takes the largest x.
    /// - yEnd: the end of the y axis; nil takes a round number above the largest y.
    public init(
        title: String, xLabel: String, yLabel: String, series: [Series], marks: [Mark] = [], xEnd: Double? = nil,
        yEnd: Double? = nil
    ) {
        (self.title, self.xLabel, self.yLabel) = (title, xLabel, yLabel)
        (self.series, self.marks, self.xEnd, self.yEnd) = (series, marks, xEnd, yEnd)
    }

    private var xTop: Double {
        max(xEnd ?? series.flatMap { line in line.points.map { $0.x + line.barWidth } }.max() ?? 1, 1e-9)
    }

    /// The SVG element.
    public var svg: String {
        let yTicks = Self.ticks(to: yEnd ?? max(series.flatMap { $0.points.map(\.y) }.max() ?? 1, 1e-9) * 1.05)
        let yTop = yTicks.last ?? 1
        var parts = [
            "<svg viewBox=\"0 0 \(Int(Self.width)) \(Int(Self.height))\" role=\"img\" aria-label=\"\(Text.escaped(title))\">",
            SVG.element("text", ["class": "title", "x": "\(Self.left)", "y": "18"], text: title),
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
        let (left, end, base) = ("\(Self.left)", "\(Self.width - Self.right)", Self.height - Self.bottom)
        var parts: [String] = []
        for tick in yTicks {
            let y = n(place(0, tick, yTop).y)
            parts.append(SVG.element("line", ["class": "grid", "x1": left, "x2": end, "y1": y, "y2": y]))
            parts.append(
                SVG.element(
                    "text", ["class": "tick", "text-anchor": "end", "x": "\(Self.left - 6)", "y": y, "dy": "4"],
                    text: Text.number(tick)))
        }
        for tick in Self.ticks(to: xTop) where tick <= xTop * 1.0001 {
            let x = n(place(tick, 0, yTop).x)
            parts.append(
                SVG.element("line", ["class": "axis", "x1": x, "x2": x, "y1": "\(base)", "y2": "\(base + 4)"]))
            parts.append(
                SVG.element(
                    "text", ["class": "tick", "text-anchor": "middle", "x": x, "y": "\(base + 17)"],
                    text: Text.number(tick)))
        }
        parts.append(
            SVG.element("line", ["class": "axis", "x1": left, "x2": end, "y1": "\(base)", "y2": "\(base)"]))
        let middle = (Self.left + Self.width - Self.right) / 2
        parts.append(
            SVG.element(
                "text", ["class": "label", "text-anchor": "middle", "x": "\(middle)", "y": "\(Self.height - 8)"],
                text: xLabel))
        let height = (Self.top + base) / 2
        parts.append(
            SVG.element(
                "text",
                ["class": "label", "text-anchor": "middle", "transform": "translate(14 \(height)) rotate(-90)"],
                text: yLabel))
        return parts
    }

    private func draw(_ series: Series, _ yTop: Double) -> [String] {
        let places = series.points.map { place($0.x, $0.y, yTop) }
        switch series.style {
        case .line:
            let points = places.map { "\(n($0.x)),\(n($0.y))" }.joined(separator: " ")
            return [
                SVG.element(
                    "polyline", ["fill": "none", "stroke": series.color, "stroke-width": "2", "points": points])
            ]
        case .points:
            return places.map { place in
                SVG.element(
                    "circle",
                    [
                        "cx": n(place.x), "cy": n(place.y), "r": "2.5", "fill": series.color, "fill-opacity": "0.55",
                    ])
            }
        case .bars:
            return series.points.map { point in
                let (from, to) = (place(point.x, 0, yTop), place(point.x + series.barWidth, point.y, yTop))
                return SVG.element(
                    "rect",
                    [
                        "x": n(from.x), "y": n(to.y), "width": n(max(0.5, to.x - from.x - 0.5)),
                        "height": n(from.y - to.y), "fill": series.color,
                    ])
            }
        }
    }

    /// Names stand below each other, so that marks close together stay readable.
    private func draw(_ mark: Mark, row: Int) -> [String] {
        let x = place(mark.x, 0, 1).x
        let isRight = x > Self.width * 0.7
        return [
            SVG.element(
                "line",
                [
                    "class": "mark", "x1": n(x), "x2": n(x), "y1": "\(Self.top)",
                    "y2": "\(Self.height - Self.bottom)",
                ]),
            SVG.element(
                "text",
                [
                    "class": "tick halo", "x": n(x + (isRight ? -4 : 4)), "y": n(Self.top + 11 + Double(row) * 14),
                    "text-anchor": isRight ? "end" : "start",
                ], text: mark.name),
        ]
    }

    private func legend() -> [String] {
        guard series.count > 1 else { return [] }
        var x = Self.width - Self.right
        return series.reversed().flatMap { line -> [String] in
            x -= Double(line.name.count) * 6.6 + 24
            return [
                SVG.element("rect", ["x": n(x), "y": "9", "width": "10", "height": "10", "fill": line.color]),
                SVG.element("text", ["class": "tick", "x": n(x + 14), "y": "18"], text: line.name),
            ]
        }
    }

    private func n(_ value: Double) -> String { Text.number(value, digits: 2) }

    /// About five round numbers from 0 to at least `end`.
    private static func ticks(to end: Double) -> [Double] {
        let rough = end / 5
        let power = pow(10, floor(log10(rough)))
        let step = ([1, 2, 5, 10].first { $0 * power >= rough * 0.999 } ?? 10) * power
        return (0...Int((end / step).rounded(.up))).map { Double($0) * step }
    }
}
