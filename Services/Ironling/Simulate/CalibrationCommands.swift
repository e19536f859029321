import DeploymentModel
import Foundation
import FusedMoE
import ServiceSupport
import ServingSimulator
import TPU

/// `ironling simulate calibrate`: fits the device's parameters to the published figures that may be fitted.
enum CalibrateCommand {
    static let options = CommandLineOptions(
        program: "ironling simulate calibrate",
        summary: "Fits a few parameters to the published figures marked for it.",
        options: [
            CommandLineOption(
                "serving", help: "fit host time per step and the H200's efficiency instead of the device's parameters"),
            CommandLineOption("costs", value: "FILE", help: "with --serving: start from these step costs"),
            CommandLineOption(
                "parameters", value: "FILE", help: "start from this file instead of the built-in parameters"),
            CommandLineOption("output", value: "FILE", help: "parameter file to write", shownFallback: "print it"),
        ])

    static func run(_ values: OptionValues) throws {
        let start = try KernelCallOptions.parameters(values)
        guard !values.isOn("serving") else {
            let fitted = try ServingCalibration().fit(
                ServingOptions.costs(values), runner: SimulatedServing(), device: start,
                progress: ServiceProcess.complain)
            return try finish(fitted.json(), values)
        }
        let fitted = try Calibration().fit(start) { step in
            ServiceProcess.complain(
                "round \(step.round): \(step.parameter) = \(KernelReport.number(step.value, 3)), \(step.figure) is off by "
                    + "\(KernelReport.number(step.error, 2)) %")
        }
        try finish(fitted.json(), values)
    }

    private static func finish(_ json: Data, _ values: OptionValues) throws {
        guard let file = values.text("output") else { return print(String(decoding: json, as: UTF8.self)) }
        try SimulateMoECommand.write(json, to: file, "--output")
        ServiceProcess.complain("wrote \(file); build again to use it")
    }
}

/// `ironling simulate validate`: every published figure beside ours, and whether ours drifted.
enum ValidateCommand {
    static let options = CommandLineOptions(
        program: "ironling simulate validate",
        summary:
            "Compares the simulator with every published figure; fails when its numbers are not the committed ones.",
        options: [
            CommandLineOption(
                "only", value: "HALF", help: "kernel: the fused kernels; serving: a deployment", shownFallback: "both"),
            CommandLineOption("parameters", value: "FILE", help: "device parameters instead of the calibrated ones"),
            CommandLineOption("costs", value: "FILE", help: "step costs instead of the calibrated ones"),
            CommandLineOption(
                "accept", value: "FILE",
                help: "write the numbers as the committed ones instead of checking; with --only"),
            CommandLineOption(
                "plot", value: "FILE", help: "draw the serving figures, ours against published, as SVG",
                implied: "serving.svg"),
        ])

    private enum Half: String, CaseIterable {
        case kernel, serving
    }

    static func run(_ values: OptionValues) throws {
        let halves: [Half] = try values.text("only") == nil ? Half.allCases : [KernelCallOptions.choice(values, "only")]
        if values.text("accept") != nil, halves.count > 1 {
            throw UsageError("--accept writes one file: say which with --only kernel or --only serving")
        }
        var drift: [String] = []
        for half in halves {
            switch half {
            case .kernel: drift += try validateKernel(values)
            case .serving: drift += try validateServing(values)
            }
        }
        guard values.text("accept") == nil else { return }
        guard drift.isEmpty else {
            throw StartError("the numbers drifted from the committed ones:\n  " + drift.joined(separator: "\n  "))
        }
        print("no drift from the committed numbers")
    }

    private static func validateKernel(_ values: OptionValues) throws -> [String] {
        let validation = try Validation(parameters: KernelCallOptions.parameters(values)) {
            ServiceProcess.progress("simulating \($0)")
        }
        ServiceProcess.progress(nil)
        print("fused kernels\n\n\(ValidationText.table(validation))\n")
        if let file = values.text("accept") {
            try SimulateMoECommand.write(validation.predictionFile(), to: file, "--accept")
        }
        return try validation.drift(from: Validation.committedNumbers())
    }

    private static func validateServing(_ values: OptionValues) throws -> [String] {
        let validation = try ServingValidation(
            runner: SimulatedServing(), costs: ServingOptions.costs(values),
            device: KernelCallOptions.parameters(values)
        ) { ServiceProcess.progress("serving \($0)") }
        ServiceProcess.progress(nil)
        print("serving and memory\n\n\(ServingValidationText.table(validation))\n")
        if let file = values.text("plot") {
            try SimulateMoECommand.write(Data(ServingPlot(validation).svg().utf8), to: file, "--plot")
            ServiceProcess.complain("wrote \(file)")
        }
        if let file = values.text("accept") {
            try SimulateMoECommand.write(validation.predictionFile(), to: file, "--accept")
        }
        return try validation.drift(from: ServingValidation.committedNumbers())
    }
}
