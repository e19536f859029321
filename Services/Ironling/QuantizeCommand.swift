import Checkpoint
import Foundation
import ServiceSupport

/// `ironling quantize`: the FP8 variant of a checkpoint.
enum QuantizeCommand {
    static let options = CommandLineOptions(
        program: "ironling quantize",
        summary: "Writes the FP8 variant of a checkpoint: e4m3 weights with one scale per output channel "
            + "(compressed-tensors). Embeddings, head, norms, router gates and MTP layers keep their type.",
        options: [
            CommandLineOption("model", value: "DIR", help: "checkpoint folder with BF16 or FP32 weights"),
            CommandLineOption("output", value: "DIR", help: "folder to make; must not exist or be empty"),
            CommandLineOption("quiet", help: "print no progress"),
        ], position: "model")

    static func run(_ values: OptionValues) throws {
        let source = try ModelFolder(try values.required("model"))
        let target = URL(fileURLWithPath: try values.required("output"))
        let quantizer = try CheckpointQuantizer(try Checkpoint(source), output: target)
        let isQuiet = values.isOn("quiet")
        var shown = -1
        let summary = try quantizer.run { progress in
            let percent = progress.bytesTotal == 0 ? 100 : progress.bytesDone * 100 / progress.bytesTotal
            guard !isQuiet, percent / 10 > shown else { return }
            shown = percent / 10
            ServiceProcess.complain("quantize: \(percent) %, \(progress.tensor)")
        }
        let (before, after) = (megabytes(summary.bytesBefore), megabytes(summary.bytesAfter))
        ServiceProcess.announce(
            "\(target.path): \(summary.quantizedTensors) tensors in FP8, \(summary.keptTensors) kept, "
                + "\(before) MB became \(after) MB")
    }

    private static func megabytes(_ bytes: Int) -> String { String(format: "%.1f", Double(bytes) / 1e6) }
}
