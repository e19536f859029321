import DeploymentModel
import Foundation

/// A serving validation as tables.
enum ServingValidationText {
    static func table(_ validation: ServingValidation) -> String {
        var lines = [cells("figure", "published", "ours", "error", "use")]
        lines += validation.comparisons.map(row)
        lines += ["", summary(validation)]
        lines += validation.comparisons.compactMap { comparison in
            reasons[comparison.figure.name].map { "\(comparison.figure.name): \($0)" }
        }
        lines += validation.notes
        lines += ["", "calibrated, everything else is predicted:"] + calibrated(validation.costs)
        lines += [
            "",
            "runs                    tok/s out   tok/s in  TTFT ms    TPOT ms   seconds  decode tok/s",
        ]
        lines += validation.measurements.map { name, run in
            name.padding(toLength: 22, withPad: " ", startingAt: 0)
                + String(
                    format: "%11.1f %10.0f %10.1f %8.2f %9.2f %10.0f", run.outputTokensPerSecond,
                    run.promptTokensPerSecond, run.firstTokenMilliseconds, run.tokenMilliseconds, run.seconds,
                    run.decodeTokensPerSecond)
        }
        lines += ["", "sensitivity                                  TTFT ms   TPOT ms   prefill gain %"]
        lines += validation.sensitivity.map { row in
            row.assumption.padding(toLength: 42, withPad: " ", startingAt: 0)
                + String(format: "%10.1f %9.2f %12.1f", row.firstToken, row.token, row.prefillGain)
        }
        return lines.joined(separator: "\n")
    }

    /// The fitted parameters with their values and ranges; a source names the figure.
    private static func calibrated(_ costs: CostParameters) -> [String] {
        CostParameters.Name.allCases.map { ($0.rawValue, costs[entry: $0]) }
            .filter { $0.1.provenance == .calibrated }
            .map { name, entry in
                "  \(name) = \(entry.value) (\(entry.low) to \(entry.high)) \(entry.unit), to \(entry.source)"
            }
    }

    private static func row(_ comparison: ServingValidation.Comparison) -> String {
        let figure = comparison.figure
        let published = figure.use == .sign ? "below 1" : "\(short(figure.published)) \(figure.unit)"
        let unit = figure.unit == "percent" ? "points" : "%"
        let error =
            figure.use == .sign
            ? (comparison.isWithinAim ? "sign right" : "sign wrong")
            : String(format: "%+.1f ", comparison.error) + unit
        return cells(
            figure.name, published, short(comparison.ours), error + (comparison.isWithinAim ? "" : " MISS"),
            figure.use.rawValue)
    }

    private static func summary(_ validation: ServingValidation) -> String {
        let scored = validation.comparisons.filter { $0.figure.use == .predict }
        let hit = scored.count { $0.isWithinAim }
        return "predicted figures: \(hit) of \(scored.count) within 10 % of the published number; "
            + "aim for calibrated ones: 3 %"
    }

    /// What a number depends on, where a reader should know.
    private static let reasons = [
        "e2e-1024-c32 TTFT":
            "decided by the chunk-wise GLA prefill, whose rate is derived (a dense product of side 128, in six bf16 passes) "
            + "and not fitted; see the sensitivity below.",
        "e2e-h200 decode at 512":
            "the H200 side is a sum of roofs with one fitted efficiency.",
    ]

    private static func short(_ value: Double) -> String {
        abs(value) >= 1000 ? String(format: "%.1f", value) : String(format: "%.2f", value)
    }

    private static func cells(_ id: String, _ published: String, _ ours: String, _ error: String, _ use: String)
        -> String
    {
        id.padding(toLength: 34, withPad: " ", startingAt: 0)
            + published.padding(toLength: 18, withPad: " ", startingAt: 0)
            + ours.padding(toLength: 10, withPad: " ", startingAt: 0)
            + error.padding(toLength: 20, withPad: " ", startingAt: 0) + use
    }
}
