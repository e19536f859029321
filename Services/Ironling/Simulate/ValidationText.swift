import Foundation
import FusedMoE

/// A validation as tables.
enum ValidationText {
    static func table(_ validation: Validation) -> String {
        var lines = [cells("figure", "published", "ours", "error", "use")]
        for comparison in validation.comparisons {
            let figure = comparison.figure
            for index in figure.values.indices {
                let unit = figure.unit == "percent" ? "points" : "%"
                lines.append(
                    cells(
                        index == 0 ? figure.id : "", "\(short(figure.values[index])) \(figure.unit)",
                        short(comparison.ours[index]),
                        String(format: "%+.1f ", comparison.errors[index]) + unit, figure.use.rawValue))
            }
        }
        lines += ["", summary(validation), ""] + reasons(validation)
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

    private static func summary(_ validation: Validation) -> String {
        String(
            format:
                "predicted figures: median error %.1f, largest %.1f; all-to-all slope %.1f ps/B published, %.1f ours",
            validation.medianPredictedError, validation.predictedErrors.last ?? 0,
            validation.exchangeSlope.published, validation.exchangeSlope.ours)
    }

    private static func reasons(_ validation: Validation) -> [String] {
        validation.comparisons.compactMap { comparison in
            comparison.reason.map { "\(comparison.figure.id): \($0)" }
        }
    }

    private static func rank(_ validation: Validation) -> String {
        validation.sweep.compactMap { row in row.milliseconds.map { (row.tile, $0) } }.sorted { $0.1 < $1.1 }
            .map { $0.0.replacing("bts=", with: "").replacing(",btc=", with: "/") }.joined(separator: " < ")
    }

    private static func short(_ value: Double) -> String {
        abs(value) >= 20 ? KernelReport.number(value, 1) : KernelReport.number(value, 3)
    }

    private static func cells(_ id: String, _ published: String, _ ours: String, _ error: String, _ use: String)
        -> String
    {
        id.padding(toLength: 34, withPad: " ", startingAt: 0)
            + published.padding(toLength: 16, withPad: " ", startingAt: 0)
            + ours.padding(toLength: 10, withPad: " ", startingAt: 0)
            + error.padding(toLength: 16, withPad: " ", startingAt: 0) + use
    }
}
