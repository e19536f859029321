import Foundation
import FusedMoE
import Numerics
import ServiceSupport
import TPU

/// The options of `simulate moe` as a call; every value is checked here or by the call itself.
enum KernelCallOptions {
    static func call(_ values: OptionValues) throws -> KernelCall {
        let kernel: KernelVersion = try choice(values, "kernel")
        let topology = try topology(values)
        let devices =
            values.text("ep") == nil
            ? topology.deviceCount : try values.integer("ep", in: 1...MoEProblem.Limits.devices)
        let problem = MoEProblem(
            shape: try shape(values), tokens: try values.integer("tokens", in: 1...MoEProblem.Limits.tokens),
            devices: devices, quantization: try quantization(values, kernel))
        return try KernelCall(
            kernel: kernel, problem: problem,
            overrides: try values.text("tile").map { try TileOverrides(parsing: $0) } ?? TileOverrides(),
            options: try kernelOptions(values), topology: topology, parameters: try parameters(values),
            routing: RoutingPattern(parsing: try values.required("routing")),
            seed: UInt64(try values.integer("seed", in: 0...Int.max)))
    }

    static func choice<Choice: RawRepresentable & CaseIterable>(
        _ values: OptionValues, _ name: String
    ) throws -> Choice where Choice.RawValue == String {
        let text = try values.required(name)
        guard let choice = Choice(rawValue: text) else {
            let known = Choice.allCases.map(\.rawValue).joined(separator: ", ")
            throw UsageError("--\(name) is one of \(known), not \"\(text)\"")
        }
        return choice
    }

    private static func isOn(_ values: OptionValues, _ name: String) throws -> Bool? {
        switch values.text(name) {
        case nil: nil
        case "on": true
        case "off": false
        case let text?: throw UsageError("--\(name) is on or off, not \"\(text)\"")
        }
    }

    private static func topology(_ values: OptionValues) throws -> SliceTopology {
        try SliceTopology(named: values.required("slice"), wraps: isOn(values, "wrap"))
    }

    private static func shape(_ values: OptionValues) throws -> MoEShape {
        let names = ["hidden", "intermediate", "experts", "top-k"]
        let given = names.filter { values.text($0) != nil }
        guard !given.isEmpty else {
            let name = values.text("shape") ?? "ling-2.6-1t"
            guard let shape = MoEShape.named[name] else {
                throw UsageError(
                    "--shape is one of \(MoEShape.named.keys.sorted().joined(separator: ", ")), not \"\(name)\"")
            }
            return shape
        }
        guard values.text("shape") == nil else { throw UsageError("--shape and --\(given[0]) exclude each other") }
        guard given == names else {
            throw UsageError("a layer of its own needs --hidden, --intermediate, --experts and --top-k")
        }
        return MoEShape(
            hidden: try values.integer("hidden", in: 1...MoEProblem.Limits.width),
            intermediate: try values.integer("intermediate", in: 1...MoEProblem.Limits.width),
            experts: try values.integer("experts", in: 1...MoEProblem.Limits.experts),
            topK: try values.integer("top-k", in: 1...MoEProblem.Limits.topK))
    }

    private static func quantization(_ values: OptionValues, _ kernel: KernelVersion) throws -> Quantization {
        let block = try values.required("scale-block")
        guard let scaleBlock = ScaleBlock(rawValue: block) else {
            throw UsageError("--scale-block is none or 128, not \"\(block)\"")
        }
        let weights: ElementType
        switch try values.required("weights") {
        case "fp8": weights = .float8E4M3
        case "bf16":
            guard scaleBlock == .perChannel else {
                throw UsageError("bf16 weights have no scales: --scale-block is for fp8")
            }
            weights = .bfloat16
        case let text: throw UsageError("--weights is fp8 or bf16, not \"\(text)\"")
        }
        let isQuantized = try isOn(values, "activation-quant") ?? (kernel == .v2 && weights == .float8E4M3)
        return Quantization(
            weights: weights, scaleBlock: scaleBlock, tokens: isQuantized ? .float8(.faithful) : .bfloat16)
    }

    private static func kernelOptions(_ values: OptionValues) throws -> KernelOptions {
        var ablations: Set<Ablation> = []
        for part in (values.text("ablate") ?? "").split(separator: ",", omittingEmptySubsequences: true) {
            guard let ablation = Ablation(rawValue: String(part)) else {
                let known = Ablation.allCases.map(\.rawValue).joined(separator: ", ")
                throw UsageError("--ablate takes \(known), not \"\(part)\"")
            }
            ablations.insert(ablation)
        }
        return KernelOptions(
            sharedExpert: try choice(values, "shared-expert"), metadata: try choice(values, "metadata"),
            usesActiveList: try isOn(values, "active-list") ?? true,
            prequantization: try choice(values, "prequant"), ablations: ablations)
    }

    static func parameters(_ values: OptionValues) throws -> DeviceParameters {
        guard let file = values.text("parameters") else { return .default }
        guard let data = FileManager.default.contents(atPath: file) else {
            throw UsageError("--parameters: \(file) cannot be read")
        }
        guard data.count <= 1 << 20 else { throw UsageError("--parameters: \(file) is longer than 1 MiB") }
        return try DeviceParameters(json: data)
    }
}
