import Foundation
import FusedMoE

/// A validation as tables.
enum ValidationText {
    static func table(_ validation: Validation) -> String {
        var lines = [cells("figure", "published", "ours", "error", "use")]
        for comparison in validation.comparisons {
            lines += rows(comparison)
            if let reason = comparison.reason { lines += wrapped("why: " + reason) }
        }
        lines += [""] + summary(validation)
        lines += ["", "tile sweep (fp8 rows, no shared expert)"]
        lines += validation.sweep.map { row in
            "  " + row.tile.padding(toLength: 20, withPad: " ", startingAt: 0)
                + (row.milliseconds.map { KernelReport.number($0, 3) + " ms" } ?? "refused: VMEM")
        }
        lines.append("  rank: \(rank(validation)); published: 160/80 < 256/128, 384/128 refused")
        lines += [
            "",
            "sensitivity (ms)".padding(toLength: 36, withPad: " ", startingAt: 0) + "prefill fp8  prefill bf16  decode",
        ]
        lines += validation.sensitivity.map { row in
            "  " + row.assumption.padding(toLength: 34, withPad: " ", startingAt: 0)
                + row.milliseconds.map { KernelReport.number($0, 3).padding(toLength: 13, withPad: " ", startingAt: 0) }
                .joined()
        }
        return lines.joined(separator: "\n")
    }

    private static func rows(_ comparison: FigureComparison) -> [String] {
        let figure = comparison.figure
        return figure.values.indices.map { index in
            let unit = figure.unit == "percent" ? "points" : "%"
            return cells(
                index == 0 ? figure.id : "", "\(short(figure.values[index])) \(figure.unit)",
                short(comparison.ours[index]), String(format: "%+.1f ", comparison.errors[index]) + unit,
                figure.use.rawValue)
        }
    }

    private static func summary(_ validation: Validation) -> [String] {
        let exact = validation.comparisons.filter { $0.figure.use == .exact }.flatMap(\.errors)
        let exchange = validation.exchangeWithRowCost
        return [
            String(
                format:
                    "predicted: median error %.1f, with figures that are percentages in points; %.1f with all errors "
                    + "relative", validation.medianPredictedError, validation.medianRelativePredictedError),
            "exact: \(exact.count(where: { $0 == 0 })) of \(exact.count) numbers as printed",
            String(
                format:
                    "all-to-all: slope %.1f ps/B published, %.1f ours; with the %.0f ns per row and link of a similar "
                    + "model's stand-alone scatter ours take %.2f and %.2f ms", validation.exchangeSlope.published,
                validation.exchangeSlope.ours, Validation.rowCost, exchange.first ?? 0, exchange.last ?? 0),
        ]
    }

    private static func rank(_ validation: Validation) -> String {
        validation.sweep.compactMap { row in row.milliseconds.map { (row.tile, $0) } }.sorted { $0.1 < $1.1 }
            .map { $0.0.replacing("bts=", with: "").replacing(",btc=", with: "/") }.joined(separator: " < ")
    }

    /// Lines of at most 100 characters, indented below the figure they belong to.
    private static func wrapped(_ text: String) -> [String] {
        var lines = [""]
        for word in text.split(separator: " ") {
            if lines[lines.count - 1].count + word.count > 94 { lines.append("") }
            lines[lines.count - 1] += (lines[lines.count - 1].isEmpty ? "" : " ") + word
        }
        return lines.map { "    " + $0 }
    }

    private static func short(_ value: Double) -> String {
        abs(value) >= 20 ? KernelReport.number(value, 1) : KernelReport.number(value, 3)
    }

    private static func cells(
        _ id: String, _ published: String, _ ours: String, _ error: String, _ use: String
    ) -> String {
        id.padding(toLength: 34, withPad: " ", startingAt: 0)
            + published.padding(toLength: 16, withPad: " ", startingAt: 0)
            + ours.padding(toLength: 10, withPad: " ", startingAt: 0)
            + error.padding(toLength: 16, withPad: " ", startingAt: 0) + use
    }
}
