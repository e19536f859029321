import Scheduling
import ServiceSupport

/// The options that choose a simulated deployment, of `simulate serve`, of `up --mode emulate` and of the attention
/// service that `up` starts. What they come to is worked out where the simulator is.
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
}
