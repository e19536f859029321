import Checkpoint
import DeploymentModel
import Foundation
import FusedMoE
import Numerics
import Scheduling
import ServiceSupport
import ServingSimulator

/// The options that choose a deployment, of `simulate serve` and of `up --mode emulate`.
enum DeploymentChoiceOptions {
    static let options = [
        CommandLineOption("slice", value: "NAME", help: "simulated slice: v7x-4, -8, -16, -64", fallback: "v7x-16"),
        CommandLineOption(
            "layout", value: "NAME",
            help: "colocated (experts on the attention devices) or disaggregated (on half of the devices)",
            fallback: "colocated"),
        CommandLineOption("tp", value: "N", help: "devices of a data-parallel attention rank", fallback: "4"),
        CommandLineOption("kernel", value: "v1|v2", help: "fused MoE kernel", fallback: "v2"),
        CommandLineOption(
            "step-policy", value: "NAME",
            help:
                "prefill-first (as published: prompts alone while there are any) or mixed (decode rows beside prompts)",
            fallback: "prefill-first"),
        CommandLineOption(
            "gather", value: "US", help: "microseconds an idle slice waits for more before its first step",
            fallback: "5000"),
    ]

    /// What `values` choose; options that a command does not have take their defaults.
    static func choice(_ values: OptionValues) throws -> ServingDeployment.Choice {
        var choice = ServingDeployment.Choice()
        choice.slice = try values.required("slice")
        choice.layout = try values.required("layout")
        choice.tensorParallel = try values.integer("tp", in: 1...64)
        choice.kernel = try KernelCallOptions.choice(values, "kernel")
        choice.policy = try KernelCallOptions.choice(values, "step-policy")
        choice.gatherMicroseconds = UInt64(try values.integer("gather", in: 0...10_000_000))
        if values.text("prefill-chunk") != nil {
            choice.prefillChunk = try values.integer("prefill-chunk", in: 64...16384)
        }
        guard choice.prefillChunk % 64 == 0 else {
            throw UsageError("--prefill-chunk must be a multiple of 64, not \(choice.prefillChunk)")
        }
        if values.text("slots") != nil { choice.slots = try values.integer("slots", in: 1...4096) }
        if values.text("kv-tokens") != nil { choice.tokens = try values.integer("kv-tokens", in: 64...(1 << 26)) }
        return choice
    }

    /// The shape of a named model, or of a folder's config.json.
    static func shape(_ model: String) throws -> ModelShape {
        if let shape = ModelShape.named[model] { return shape }
        let folder = URL(fileURLWithPath: model)
        guard let json = FileManager.default.contents(atPath: folder.appendingPathComponent("config.json").path) else {
            let known = ModelShape.named.keys.sorted().joined(separator: ", ")
            throw UsageError("--model is \(known) or a folder with a config.json, not \"\(model)\"")
        }
        var shape = ModelShape(name: folder.lastPathComponent, try ModelConfiguration(json: json))
        // Widths that the kernel does not accept are rounded up to whole lanes, as the experts service does.
        let problem = MoEProblem(
            shape: shape.experts, tokens: 1, devices: 1,
            quantization: Quantization(weights: .float8E4M3, tokens: .bfloat16))
        if (try? problem.validated()) == nil { shape.experts = shape.experts.paddedToLanes }
        return shape
    }
}
