import DeploymentModel
import Foundation
import FusedMoE
import ServiceSupport
import TPU

/// `ironling simulate step`: what one step of a deployment costs, part by part, and what its memory holds.
enum SimulateStepCommand {
    static let options = CommandLineOptions(
        program: "ironling simulate step",
        summary: "Prints what one decode step and one prefill step of a deployment cost by component, and its memory.",
        options: [
            CommandLineOption("shape", value: "NAME", help: "ling-2.6-1t or ling-2.6-flash", fallback: "ling-2.6-1t"),
            CommandLineOption(
                "layout", value: "NAME",
                help: DeploymentLayout.named.keys.sorted().joined(separator: ", ")
                    + ", or all to compare",
                fallback: "colocated"),
            CommandLineOption("kernel", value: "v1|v2", help: "fused MoE kernel", fallback: "v2"),
            CommandLineOption("shared-expert", value: "WHERE", help: "in-kernel or external", fallback: "in-kernel"),
            CommandLineOption(
                "metadata", value: "HOW", help: "butterfly (as the blog measured) or direct", fallback: "butterfly"),
            CommandLineOption("concurrency", value: "N", help: "requests that decode, over all ranks", fallback: "128"),
            CommandLineOption("context", value: "N", help: "tokens of each request so far", fallback: "16384"),
            CommandLineOption("chunk", value: "N", help: "prompt rows per rank in the prefill step", fallback: "2048"),
            CommandLineOption(
                "prompt", value: "N", help: "tokens of each prompt that the prefill step is part of", fallback: "16384"),
            CommandLineOption(
                "answer", value: "N", help: "tokens of each answer, for the comparison of layouts", fallback: "1024"),
            CommandLineOption("seed", value: "N", help: "seed of the routing", fallback: "0"),
            CommandLineOption("parameters", value: "FILE", help: "device parameters instead of the calibrated ones"),
            CommandLineOption("costs", value: "FILE", help: "step costs instead of the calibrated ones"),
            CommandLineOption("provenance", help: "print every number of the step costs and where it comes from"),
            CommandLineOption("json", help: "print one JSON object instead of tables"),
        ])

    static func run(_ values: OptionValues) throws {
        guard !values.isOn("provenance") else { return print(provenance(try ServingOptions.costs(values))) }
        let reports = try layouts(values).map { try StepReport($0.key, deployment($0.value, values), values) }
        if reports.count == 1, let refusal = reports[0].refusal { throw refusal }
        guard !values.isOn("json") else { return print(try KernelReport.json(StepReport.json(reports))) }
        print(StepReport.text(reports))
        if reports.count > 1 { print("\n" + comparison(try compare(values))) }
    }

    private static func provenance(_ costs: CostParameters) -> String {
        CostParameters.Name.allCases.map { name in
            let entry = costs[entry: name]
            let range = entry.low == entry.high ? "" : " (\(entry.low) to \(entry.high))"
            return
                "\(name.rawValue) = \(entry.value)\(range) \(entry.unit)\n    \(entry.provenance.rawValue): \(entry.source)"
        }.joined(separator: "\n")
    }

    private static func compare(_ values: OptionValues) throws -> LayoutComparison {
        try LayoutComparison(
            LayoutComparison.Load(
                promptTokens: try values.integer("prompt", in: 1...(1 << 21)),
                outputTokens: try values.integer("answer", in: 1...(1 << 21)),
                concurrency: try values.integer("concurrency", in: 1...65_536)),
            shape: try shape(values), options: try options(values), costs: try ServingOptions.costs(values),
            device: try KernelCallOptions.parameters(values))
    }

    private static func comparison(_ comparison: LayoutComparison) -> String {
        let load = comparison.load
        var lines = [
            "\(load.promptTokens) + \(load.outputTokens) tokens, \(load.concurrency) at once, on the same chips "
                + "(estimate from step costs)",
            "                                            requests/s  per token   bound by",
        ]
        for row in comparison.rows {
            let verdict = comparison.verdict(row)
            lines.append(
                row.name.padding(toLength: 44, withPad: " ", startingAt: 0)
                    + String(format: "%10.3f %7.1f ms   ", row.requestsPerSecond, row.tokenMilliseconds) + row.bound
                    + (row == comparison.rows.first
                        ? ""
                        : String(format: "; %+.0f %% requests/s, %+.0f %% per token", verdict.requests, verdict.tokens))
            )
        }
        return lines.joined(separator: "\n")
    }

    private static func layouts(_ values: OptionValues) throws -> [(key: String, value: DeploymentLayout)] {
        let name = try values.required("layout")
        let all = DeploymentLayout.named.sorted { $0.key < $1.key }
        guard name != "all" else { return all }
        guard let layout = DeploymentLayout.named[name] else {
            throw UsageError("--layout is one of \(all.map(\.key).joined(separator: ", ")) or all, not \"\(name)\"")
        }
        return [(name, layout)]
    }

    private static func shape(_ values: OptionValues) throws -> ModelShape {
        let name = try values.required("shape")
        guard let shape = ModelShape.named[name] else {
            throw UsageError(
                "--shape is one of \(ModelShape.named.keys.sorted().joined(separator: ", ")), not \"\(name)\"")
        }
        return shape
    }

    private static func deployment(_ layout: DeploymentLayout, _ values: OptionValues) throws -> Deployment {
        try Deployment(
            shape: shape(values), layout: layout, options: options(values), costs: ServingOptions.costs(values),
            device: KernelCallOptions.parameters(values))
    }

    private static func options(_ values: OptionValues) throws -> DeploymentOptions {
        DeploymentOptions(
            kernel: try KernelCallOptions.choice(values, "kernel"),
            sharedExpert: try KernelCallOptions.choice(values, "shared-expert"),
            metadata: try KernelCallOptions.choice(values, "metadata"),
            rowsPerRank: try values.integer("chunk", in: 64...65_536),
            seed: UInt64(try values.integer("seed", in: 0...Int.max)))
    }
}

/// A decode step and a prefill step of one layout.
struct StepReport {
    let name: String
    let deployment: Deployment
    let concurrency: Int
    let decode: StepCost
    let prefillRows: Int
    let prefill: StepCost
    /// Why the decoding requests do not fit.
    let refusal: DeploymentError?

    init(_ name: String, _ made: Deployment, _ values: OptionValues) throws {
        var deployment = made
        self.name = name
        let requests = try values.integer("concurrency", in: 1...65_536)
        concurrency = requests
        let context = try values.integer("context", in: 0...(1 << 21))
        let ranks = deployment.ranks
        do throws(DeploymentError) {
            try deployment.memory.require(
                requestsPerRank: (requests + ranks - 1) / ranks, tokensPerRequest: context)
            refusal = nil
        } catch { refusal = error }
        decode = deployment.cost(
            of: StepWork(
                ranks: (0..<ranks).map { rank in
                    let own = requests / ranks + (rank < requests % ranks ? 1 : 0)
                    return Array(repeating: .decode(context: context), count: own)
                }))
        let chunk = try values.integer("chunk", in: 64...65_536)
        prefill = Self.prefill(
            &deployment, chunk: chunk, prompt: max(chunk, try values.integer("prompt", in: 1...(1 << 21))))
        prefillRows = chunk * ranks
        self.deployment = deployment
    }

    /// The mean of all steps that a prompt takes.
    private static func prefill(_ deployment: inout Deployment, chunk: Int, prompt: Int) -> StepCost {
        let context = (prompt - chunk) / 2
        return deployment.cost(
            of: StepWork(
                ranks: deployment.ranks, each: [.prefill(rows: chunk, context: context, samples: true)]))
    }

    static func json(_ reports: [StepReport]) -> [String: Any] {
        func object(_ cost: StepCost) -> [String: Any] {
            Dictionary(
                uniqueKeysWithValues: cost.components.map { ($0.component.rawValue, milliseconds($0.time)) }
                    + [("total", milliseconds(cost.total))])
        }
        return Dictionary(
            uniqueKeysWithValues: reports.map { report in
                (
                    report.name,
                    [
                        "decode_ms": object(report.decode), "prefill_ms": object(report.prefill),
                        "devices": report.deployment.layout.devices,
                        "requests_per_rank": report.deployment.memory.requestsPerRank,
                        "tokens_per_rank": report.deployment.memory.tokensPerRank, "fits": report.refusal == nil,
                    ] as [String: Any]
                )
            })
    }

    static func milliseconds(_ time: Picoseconds) -> Double { (Double(time) * 1e-3).rounded() * 1e-6 }

    static func text(_ reports: [StepReport]) -> String { reports.map(\.text).joined(separator: "\n\n") }

    private var text: String {
        var lines = ["\(name): \(deployment.layout)", "", "                          decode      prefill"]
        for component in Component.allCases where decode[component] != 0 || prefill[component] != 0 {
            lines.append(Self.row(component.rawValue, decode[component], prefill[component]))
        }
        lines.append(Self.row("step", decode.total, prefill.total))
        let devices = Double(deployment.layout.devices)
        let (tokens, prompts) = (
            Double(concurrency) / Double(decode.total) * 1e12, Double(prefillRows) / Double(prefill.total) * 1e12
        )
        lines.append(
            String(format: "tokens/s              %10.0f   %10.0f", tokens, prompts)
                + String(format: "   (per device %.0f, %.0f)", tokens / devices, prompts / devices))
        for device in deployment.memory.devices { lines.append("memory of a device for \(device.name): \(device.sum)") }
        lines.append("pools of a rank: \(deployment.memory.pools)")
        if let refusal { lines.append("does not fit: \(refusal)") }
        return lines.joined(separator: "\n")
    }

    private static func row(_ name: String, _ decode: Picoseconds, _ prefill: Picoseconds) -> String {
        name.padding(toLength: 20, withPad: " ", startingAt: 0)
            + String(format: "%9.3f ms %9.2f ms", Double(decode) * 1e-9, Double(prefill) * 1e-9)
    }
}
