import DeploymentModel
import Foundation
import ServingSimulator

/// Where a slice's time went, as an SVG element of 560 by 300: one bar per kind of step, its components side by side.
struct ComponentPlot {
    private let slice: SliceStatistics

    /// Okabe and Ito's colours, which most colour-blind readers can tell apart, and greys for what is small.
    private static let colours: [(Component, String)] = [
        (.linearPrefill, "#D55E00"), (.latentPrefill, "#E69F00"), (.linearDecode, "#CC79A7"),
        (.latentDecode, "#F0E442"), (.experts, "#0072B2"), (.projections, "#009E73"), (.collectives, "#56B4E9"),
        (.exchange, "#88BBAA"), (.host, "#444444"),
    ]
    private static let (left, right, top, bar) = (70.0, 540.0, 40.0, 34.0)

    init(_ slice: SliceStatistics) { self.slice = slice }

    var svg: String {
        let kinds = StepSpan.Kind.allCases.compactMap { kind in slice.steps[kind].map { (kind, $0) } }
        let longest = kinds.map { Self.seconds($0.1.cost.total) }.max() ?? 1
        var parts = [
            "<svg viewBox=\"0 0 560 300\" role=\"img\">",
            "<text class=\"title\" x=\"20\" y=\"18\">Slice \(slice.name): seconds by kind of step and component</text>",
        ]
        for (row, (kind, steps)) in kinds.enumerated() {
            let y = Self.top + Double(row) * (Self.bar + 12)
            parts.append(
                "<text class=\"label\" text-anchor=\"end\" x=\"\(Self.left - 8)\" y=\"\(y + 22)\">\(kind.rawValue)</text>"
            )
            parts += bar(steps.cost, y, scale: (Self.right - Self.left - 60) / max(longest, 1e-9))
        }
        parts += legend(top: Self.top + 3 * (Self.bar + 12) + 14)
        return (parts + ["</svg>"]).joined(separator: "\n")
    }

    private func bar(_ cost: StepCost, _ y: Double, scale: Double) -> [String] {
        var x = Self.left
        var parts: [String] = []
        for (seconds, colour) in Self.shares(cost) where seconds > 0 {
            let width = seconds * scale
            parts.append(
                "<rect x=\"\(n(x))\" y=\"\(n(y))\" width=\"\(n(width))\" height=\"\(n(Self.bar))\" fill=\"\(colour)\"/>"
            )
            x += width
        }
        return parts + [
            "<text class=\"tick\" x=\"\(n(x + 6))\" y=\"\(n(y + 22))\">\(n(Self.seconds(cost.total))) s</text>"
        ]
    }

    /// The coloured components, then all the others together.
    private static func shares(_ cost: StepCost) -> [(seconds: Double, colour: String)] {
        let named = colours.map { (seconds(cost[$0.0]), $0.1) }
        return named + [(max(0, seconds(cost.total) - named.reduce(0) { $0 + $1.0 }), "#BBBBBB")]
    }

    private func legend(top: Double) -> [String] {
        let names = Self.colours.map { ($0.0.rawValue, $0.1) } + [("others", "#BBBBBB")]
        return names.enumerated().flatMap { index, entry in
            let (x, y) = (Self.left + Double(index % 4) * 118, top + Double(index / 4) * 24)
            return [
                "<rect x=\"\(n(x))\" y=\"\(n(y))\" width=\"11\" height=\"11\" fill=\"\(entry.1)\"/>",
                "<text class=\"tick\" x=\"\(n(x + 16))\" y=\"\(n(y + 10))\">\(entry.0)</text>",
            ]
        }
    }

    private static func seconds(_ time: Int64) -> Double { Double(time) * 1e-12 }

    private func n(_ value: Double) -> String { String(format: "%.2f", value) }
}
