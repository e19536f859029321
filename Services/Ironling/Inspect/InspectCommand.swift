import Checkpoint
import Foundation
import HybridModel
import JSON
import ServiceSupport
import Tokenization

/// `ironling inspect`: what a checkpoint is and whether it fits, from its headers.
enum InspectCommand {
    static let options = CommandLineOptions(
        program: "ironling inspect",
        summary: "Shows what a checkpoint holds, what it needs and whether it fits here. No weight is read.",
        options: [
            CommandLineOption("model", value: "DIR", help: "checkpoint folder"),
            CommandLineOption("experts", value: "N", help: "experts processes on this machine", fallback: "1"),
            CommandLineOption("attention", value: "N", help: "attention instances on this machine", fallback: "1"),
            CommandLineOption("slots", value: "N", help: "requests of an attention instance", fallback: "32"),
            CommandLineOption("kv-tokens", value: "N", help: "tokens of KV memory of an instance", fallback: "65536"),
            CommandLineOption("weights", value: "auto|copy|map", help: "where weights are to be put", fallback: "auto"),
            CommandLineOption("json", help: "print one JSON object instead of text"),
        ], position: "model")

    static func run(_ values: OptionValues) throws {
        guard let placement = WeightPlacement(rawValue: try values.required("weights")) else {
            throw UsageError("--weights is auto, copy or map")
        }
        let checkpoint = try Checkpoint(ModelFolder(try values.required("model")))
        let footprint = CheckpointFootprint(checkpoint)
        let attentions = try values.integer("attention", in: 1...64)
        let requests = try values.integer("slots", in: 1...4096) * attentions
        let tokens = try values.integer("kv-tokens", in: 64...(1 << 26)) * attentions
        let shards = try values.integer("experts", in: 1...256)
        let fit = MemoryFit(
            weights: footprint.weights(attentions: attentions, experts: shards),
            stateBytes: requests * footprint.bytesPerRequest + tokens * footprint.bytesPerToken,
            memory: MachineMemory.now(), placement: placement)
        let report = InspectReport(checkpoint, footprint, fit, shards: shards, requests: requests, tokens: tokens)
        ServiceProcess.announce(values.isOn("json") ? report.json.indentedText : report.text)
        if let problem = report.problems.first { throw StartError(problem) }
    }
}
