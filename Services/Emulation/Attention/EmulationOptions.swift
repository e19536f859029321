import AttentionService
import FusedMoE
import Scheduling
import ServiceSupport
import ServingSimulator

extension EmulationOptions {
    /// What `values` choose.
    ///
    /// - Throws: `UsageError` that names the option.
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
    ///
    /// - Throws: `UsageError` that names the option.
    public static func speedup(_ values: OptionValues) throws(UsageError) -> Double {
        try values.number("speedup", in: 0.01...10_000)
    }

    /// `--elide-bodies`.
    ///
    /// - Throws: `UsageError` that names the option.
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
