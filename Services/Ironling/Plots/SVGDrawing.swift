import Foundation

/// The few SVG elements the plots need.
struct SVGDrawing {
    /// Okabe and Ito's colours, which most colour-blind readers can tell apart, two greys, and three of Tol's.
    static let palette = [
        "#0072B2", "#E69F00", "#56B4E9", "#CC79A7", "#009E73", "#D55E00", "#F0E442", "#999999", "#555555",
        "#882255", "#DDCC77", "#332288",
    ]

    private let width: Double
    private let height: Double
    private var elements: [String] = []

    init(width: Double, height: Double) { (self.width, self.height) = (width, height) }

    mutating func rectangle(_ x: Double, _ y: Double, _ width: Double, _ height: Double, colour: String) {
        elements.append(
            "<rect x=\"\(Self.short(x))\" y=\"\(Self.short(y))\" width=\"\(Self.short(width))\" "
                + "height=\"\(Self.short(height))\" fill=\"\(colour)\"/>")
    }

    mutating func line(_ x1: Double, _ y1: Double, _ x2: Double, _ y2: Double, colour: String) {
        elements.append(
            "<line x1=\"\(Self.short(x1))\" y1=\"\(Self.short(y1))\" x2=\"\(Self.short(x2))\" "
                + "y2=\"\(Self.short(y2))\" stroke=\"\(colour)\"/>")
    }

    mutating func text(
        _ x: Double, _ y: Double, _ text: String, size: Int, anchor: String = "start", isBold: Bool = false,
        colour: String = "#111111"
    ) {
        let escaped = text.map { ["&": "&amp;", "<": "&lt;", ">": "&gt;"][$0] ?? String($0) }.joined()
        elements.append(
            "<text x=\"\(Self.short(x))\" y=\"\(Self.short(y))\" font-size=\"\(size)\" text-anchor=\"\(anchor)\" "
                + "fill=\"\(colour)\"\(isBold ? " font-weight=\"bold\"" : "")>\(escaped)</text>")
    }

    func document() -> String {
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 \(Self.short(width)) \(Self.short(height))\" "
            + "width=\"\(Self.short(width))\" height=\"\(Self.short(height))\" font-family=\"Helvetica, Arial, "
            + "sans-serif\">\n<rect width=\"100%\" height=\"100%\" fill=\"#FFFFFF\"/>\n"
            + elements.joined(separator: "\n") + "\n</svg>\n"
    }

    /// 1, 2 or 5 times a power of ten, for four to eight ticks.
    static func tickStep(_ span: Double) -> Double {
        let magnitude = pow(10, floor(log10(span / 5)))
        return [1, 2, 5, 10].map { $0 * magnitude }.first { span / $0 <= 8 } ?? magnitude
    }

    /// A number on an axis with steps of `step`.
    static func tick(_ value: Double, _ step: Double) -> String {
        String(format: "%.\(max(0, Int(-floor(log10(step)))))f", value)
    }

    private static func short(_ value: Double) -> String { String(format: "%.1f", value) }
}
