import FusedMoE
import StatePools
import TPU

/// The serving runs behind the published figures, each done once.
struct ValidationRuns<Runner: ServingRunner> {
    private struct Setup: Hashable {
        let name: String
        let kernel: KernelVersion
    }

    private let runner: Runner
    let costs: CostParameters
    let device: DeviceParameters
    private var known: [Setup: ServingMeasurement] = [:]
    /// What was measured, in order.
    private(set) var measurements: [(name: String, measurement: ServingMeasurement)] = []

    init(runner: Runner, costs: CostParameters, device: DeviceParameters) {
        self.runner = runner
        self.costs = costs
        self.device = device
    }

    private mutating func run(
        _ name: String, _ loop: ServingCase, _ kernel: KernelVersion = .v2
    ) throws -> ServingMeasurement {
        let setup = Setup(name: name, kernel: kernel)
        if let measurement = known[setup] { return measurement }
        let measurement = try runner.measure(loop, on: deployment(kernel, costs))
        known[setup] = measurement
        measurements.append(("\(name), \(kernel.rawValue)", measurement))
        return measurement
    }

    func deployment(_ kernel: KernelVersion, _ costs: CostParameters) throws -> Deployment {
        try Deployment(options: DeploymentOptions(kernel: kernel), costs: costs, device: device)
    }

    mutating func value(of figure: ServingFigure) throws -> Double {
        switch figure.id {
        case "e2e-1024-c32": return try cookbook(figure.metric)
        case "e2e-prefill-gain":
            return try 100
                * (prefill(.v2).promptTokensPerSecond / prefill(.v1).promptTokensPerSecond - 1)
        case "e2e-decode-gain": return try decodeGain(concurrency(figure))
        case "e2e-h200":
            let concurrency = concurrency(figure)
            return try decode(concurrency, .v2).decodeTokensPerSecond
                / H200Reference(costs: costs).decodeThroughput(
                    concurrency: concurrency, context: ServingCase.decode128.meanDecodeContext)
        case "e2e-h200-prefill":
            return try prefill(.v2).promptTokensPerSecond
                / H200Reference(costs: costs).prefillThroughput(prompt: ServingCase.prefill.promptTokens)
        default: return try memory(figure)
        }
    }

    private func concurrency(_ figure: ServingFigure) -> Int { figure.metric.hasSuffix("512") ? 512 : 128 }

    private mutating func cookbook(_ metric: String) throws -> Double {
        let run = try run("1024/1024 at 32", .cookbook)
        switch metric {
        case "output": return run.outputTokensPerSecond
        case "TPOT": return run.tokenMilliseconds
        case "TTFT": return run.firstTokenMilliseconds
        default: return run.seconds
        }
    }

    private mutating func prefill(_ kernel: KernelVersion) throws -> ServingMeasurement {
        try run("16384/1 at 128", .prefill, kernel)
    }

    mutating func decode(_ concurrency: Int, _ kernel: KernelVersion) throws -> ServingMeasurement {
        try run("16384/1024 at \(concurrency)", concurrency == 512 ? .decode512 : .decode128, kernel)
    }

    /// Of whole runs: the figure contains what prompts take between decode steps (docs/kernels.md#published-figures).
    private mutating func decodeGain(_ concurrency: Int) throws -> Double {
        let (v1, v2) = (try decode(concurrency, .v1), try decode(concurrency, .v2))
        return 100 * (v2.outputTokensPerSecond / v1.outputTokensPerSecond - 1)
    }

    private func memory(_ figure: ServingFigure) throws -> Double {
        let calculator = try PoolCalculator(shape: .ling1T, tensorParallel: 4, isPadded: true)
        let mebi = 1_048_576.0
        switch figure.metric {
        case "KV per token": return Double(calculator.bytesPerToken) / 1024
        case "state per request": return Double(calculator.bytesPerRequest) / mebi
        case "KV of 16K": return Double(calculator.bytesPerToken * 16_384) / mebi
        case "KV of 256K": return Double(calculator.bytesPerToken * 262_144) / mebi / 1024
        default: throw DeploymentError(.figures, "the published figure \"\(figure.id)\" is not known")
        }
    }

    /// The ends of the ranges that decide TTFT and prefill most.
    func sensitivity() throws -> [ServingValidation.Sensitivity] {
        var rows = [try sensitivity("as committed", costs)]
        for name in [CostParameters.Name.linearPrefill, .latentPrefill, .collectiveStep] {
            for end in [costs[entry: name].low, costs[entry: name].high] {
                var changed = costs
                changed[name] = end
                rows.append(try sensitivity("\(name.rawValue) \(end)", changed))
            }
        }
        return rows
    }

    private func sensitivity(_ name: String, _ costs: CostParameters) throws -> ServingValidation.Sensitivity {
        let loop = ServingCase(promptTokens: 1024, outputTokens: 1024, concurrency: 32, requests: 32)
        let prompts = ServingCase(promptTokens: 16_384, outputTokens: 1, concurrency: 128, requests: 128)
        let row = try runner.measure(loop, on: deployment(.v2, costs))
        let gains = try [KernelVersion.v1, .v2].map { kernel in
            try runner.measure(prompts, on: deployment(kernel, costs)).promptTokensPerSecond
        }
        return ServingValidation.Sensitivity(
            assumption: name, firstToken: row.firstTokenMilliseconds, token: row.tokenMilliseconds,
            prefillGain: 100 * (gains[1] / gains[0] - 1))
    }

    /// A decode step at each concurrency and a prefill step, on the published layout.
    func steps() throws -> [(name: String, cost: StepCost)] {
        var deployment = try deployment(.v2, costs)
        let context = ServingCase.decode128.meanDecodeContext
        func decode(_ concurrency: Int, _ context: Int) -> StepCost {
            deployment.cost(
                of: StepWork(
                    ranks: 8, each: Array(repeating: .decode(context: context), count: concurrency / 8)))
        }
        let rows = deployment.options.rowsPerRank
        return [
            ("decode, 32 × 1.5k", decode(32, ServingCase.cookbook.meanDecodeContext)),
            ("decode, 128 × 17k", decode(128, context)), ("decode, 512 × 17k", decode(512, context)),
            (
                "prefill, 16k rows",
                deployment.cost(of: StepWork(ranks: 8, each: [.prefill(rows: rows, context: 7168, samples: true)]))
            ),
        ]
    }
}
