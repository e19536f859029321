import Foundation

/// A picture of the few SVG elements that plots need.
public struct SVGDrawing {
    /// Okabe and Ito's colours, which most colour-blind readers can tell apart, two greys, and three of Tol's.
    public static let palette = [
        "#0072B2", "#E69F00", "#56B4E9", "#CC79A7", "#009E73", "#D55E00", "#F0E442", "#999999", "#555555",
        "#882255", "#DDCC77", "#332288",
    ]

    private let width: Double
    private let height: Double
    private var elements: [String] = []

    /// An empty picture, in points.
    public init(width: Double, height: Double) { (self.width, self.height) = (width, height) }

    /// A filled rectangle with its upper left corner at (x, y); all in points.
    public mutating func rectangle(_ x: Double, _ y: Double, _ width: Double, _ height: Double, colour: String) {
        elements.append(
            SVG.element(
                "rect",
                [
                    "x": Self.short(x), "y": Self.short(y), "width": Self.short(width), "height": Self.short(height),
                    "fill": colour,
                ]))
    }

    /// A line one point wide.
    public mutating func line(_ x1: Double, _ y1: Double, _ x2: Double, _ y2: Double, colour: String) {
        elements.append(
            SVG.element(
                "line",
                [
                    "x1": Self.short(x1), "y1": Self.short(y1), "x2": Self.short(x2), "y2": Self.short(y2),
                    "stroke": colour,
                ]))
    }

    /// A text whose line stands at `y`; `anchor` is start, middle or end.
    public mutating func text(
        _ x: Double, _ y: Double, _ text: String, size: Int, anchor: String = "start", isBold: Bool = false,
        colour: String = "#111111"
    ) {
        let (x, y) = (Self.short(x), Self.short(y))
        elements.append(
            isBold
                ? SVG.element(
                    "text",
                    [
                        "x": x, "y": y, "font-size": "\(size)", "text-anchor": anchor, "fill": colour,
                        "font-weight": "bold",
                    ], text: text)
                : SVG.element(
                    "text", ["x": x, "y": y, "font-size": "\(size)", "text-anchor": anchor, "fill": colour],
                    text: text))
    }

    /// The file.
    public func document() -> String {
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 \(Self.short(width)) \(Self.short(height))\" "
            + "width=\"\(Self.short(width))\" height=\"\(Self.short(height))\" font-family=\"Helvetica, Arial, "
            + "sans-serif\">\n<rect width=\"100%\" height=\"100%\" fill=\"#FFFFFF\"/>\n"
            + elements.joined(separator: "\n") + "\n</svg>\n"
    }

    /// 1, 2 or 5 times a power of ten, for four to eight ticks.
    public static func tickStep(_ span: Double) -> Double {
        let magnitude = pow(10, floor(log10(span / 5)))
        return [1, 2, 5, 10].map { $0 * magnitude }.first { span / $0 <= 8 } ?? magnitude
    }

    /// A number on an axis with steps of `step`.
    public static func tick(_ value: Double, _ step: Double) -> String {
        String(format: "%.\(max(0, Int(-floor(log10(step)))))f", value)
    }

    private static func short(_ value: Double) -> String { String(format: "%.1f", value) }
}
