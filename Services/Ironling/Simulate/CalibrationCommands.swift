import Foundation
import FusedMoE
import ServiceSupport
import TPU

/// `ironling simulate calibrate`: fits the device's parameters to the published figures that may be fitted.
enum CalibrateCommand {
    static let options = CommandLineOptions(
        program: "ironling simulate calibrate",
        summary: "Fits at most six device parameters to the published kernel figures marked for it.",
        options: [
            CommandLineOption(
                "parameters", value: "FILE", help: "start from this file instead of the built-in parameters"),
            CommandLineOption("output", value: "FILE", help: "parameter file to write (default: print it)"),
        ])

    static func run(_ values: OptionValues) throws {
        let start = try KernelCallOptions.parameters(values)
        let fitted = try Calibration().fit(start) { step in
            ServiceProcess.complain(
                "round \(step.round): \(step.parameter) = \(KernelReport.number(step.value, 3)), \(step.figure) is off by "
                    + "\(KernelReport.number(step.error, 2)) %")
        }
        guard let file = values.text("output") else { return print(String(decoding: fitted.json(), as: UTF8.self)) }
        try SimulateMoECommand.write(fitted.json(), to: file, "--output")
        ServiceProcess.complain("wrote \(file); build again to use it")
    }
}

/// `ironling simulate validate`: every published kernel figure beside ours, and whether ours drifted.
enum ValidateCommand {
    static let options = CommandLineOptions(
        program: "ironling simulate validate",
        summary:
            "Compares the simulator with every published kernel figure; fails when its numbers are not the committed ones.",
        options: [
            CommandLineOption("parameters", value: "FILE", help: "device parameters instead of the calibrated ones"),
            CommandLineOption(
                "accept", value: "FILE", help: "write the numbers as the committed ones instead of checking"),
        ])

    static func run(_ values: OptionValues) throws {
        let validation = try Validation(parameters: KernelCallOptions.parameters(values)) {
            ServiceProcess.progress("simulating \($0)")
        }
        ServiceProcess.progress(nil)
        print(ValidationText.table(validation))
        if let file = values.text("accept") {
            return try SimulateMoECommand.write(validation.predictionFile(), to: file, "--accept")
        }
        let drift = try validation.drift(from: Validation.committedNumbers())
        guard drift.isEmpty else {
            throw StartError("the numbers drifted from the committed ones:\n  " + drift.joined(separator: "\n  "))
        }
        print("no drift from the committed numbers")
    }
}

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
