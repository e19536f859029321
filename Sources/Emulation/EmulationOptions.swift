import DeploymentModel
import FusedMoE
import Scheduling
import ServiceSupport
import ServingSimulator

/// The options that choose a simulated deployment, of `simulate serve`, of `up --mode emulate` and of the attention
/// service that `up` starts.
public enum EmulationOptions {
    /// What all three have.
    public static let options = [
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
            fallback: "prefill-first", choices: StepPolicy.allCases.map(\.rawValue)),
        CommandLineOption(
            "gather", value: "US",
            help: "microseconds without a new request after which an idle slice begins its first step",
            fallback: "3000"),
    ]

    /// What a live emulation has besides.
    public static let pacing = [
        CommandLineOption(
            "speedup", value: "X", help: "emulated time runs so much faster than real time", fallback: "1"),
        CommandLineOption(
            "elide-bodies", value: "on|off",
            help: "send messages without their tensors, or with zeros of their real sizes", fallback: "on"),
    ]

    /// What `values` choose.
    public static func choice(_ values: OptionValues) throws(UsageError) -> ServingDeployment.Choice {
        var choice = ServingDeployment.Choice()
        choice.slice = try values.required("slice")
        choice.layout = try values.required("layout")
        choice.tensorParallel = try values.integer("tp", in: 1...64)
        choice.kernel = try one(of: KernelVersion.self, "kernel", values)
        choice.policy = try one(of: StepPolicy.self, "step-policy", values)
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

    /// `--speedup`.
    public static func speedup(_ values: OptionValues) throws(UsageError) -> Double {
        try values.number("speedup", in: 0.01...10_000)
    }

    /// `--elide-bodies`.
    public static func elidesBodies(_ values: OptionValues) throws(UsageError) -> Bool {
        switch try values.required("elide-bodies") {
        case "on": return true
        case "off": return false
        case let text: throw UsageError("--elide-bodies is on or off, not \"\(text)\"")
        }
    }

    private static func one<Choice: RawRepresentable & CaseIterable>(
        of: Choice.Type, _ name: String, _ values: OptionValues
    ) throws(UsageError) -> Choice where Choice.RawValue == String {
        let text = try values.required(name)
        guard let choice = Choice(rawValue: text) else {
            let known = Choice.allCases.map(\.rawValue).joined(separator: ", ")
            throw UsageError("--\(name) is one of \(known), not \"\(text)\"")
        }
        return choice
    }
}
