import AttentionService
import DeploymentModel
import Emulation
import LoadTesting
import Scheduling
import ServiceSupport
import Serving
import ServingSimulator

/// What the command line asks for, checked.
struct ServePlan {
    let serving: ServingDeployment
    let scenario: ServingScenario
    var settings: LoadSettings
    /// What the reader should know beside the numbers.
    var notes: [String] = []

    init(_ given: OptionValues) throws {
        let values = try Self.withLengths(given)
        let model = try values.required("model")
        serving = try ServingDeployment(
            shape: try EmulatedModel(model).shape, try EmulationOptions.choice(values))
        let load = try Self.load(values)
        settings = try LoadPlan.settings(values, try LoadPlan.dataset(values), load.workload, load.due)
        settings.backend = "simulate"
        settings.target = "\(serving.deployment.shape.name) on \(serving.deployment.layout)"
        var limits = PlacementLimits()
        limits.waiting = try values.integer("queue", in: 0...10_000_000)
        limits.waitMicroseconds = UInt64(try values.number("queue-timeout", in: 0.001...1e7) * 1e6)
        limits.expectedGrowth = serving.choice.expectedGrowth
        scenario = ServingScenario(
            slices: try Self.slices(values, serving), load: load,
            policy: try KernelCallOptions.choice(values, "placement"), placement: limits,
            timelineLimit: values.text("trace") == nil ? 0 : try values.integer("trace-limit", in: 1...1_000_000))
        try requireRoom()
    }

    /// `--input-len` and `--output-len` say what `--random-input-len` and `--random-output-len` do.
    private static func withLengths(_ values: OptionValues) throws(UsageError) -> OptionValues {
        var values = values
        for name in ["input-len", "output-len"] {
            guard let text = values.text(name) else { continue }
            values = values.setting("random-\(name)", to: text)
        }
        return values
    }

    private static func load(_ values: OptionValues) throws -> ServingLoad {
        let seed = UInt64(try values.integer("seed", in: 0...Int.max))
        let workload = try LoadPlan.workload(try LoadPlan.dataset(values), values, 256, seed)
        let limit =
            values.text("max-concurrency") == nil
            ? Int.max : try values.integer("max-concurrency", in: 1...LoadPlan.concurrencyBound)
        return ServingLoad(
            workload: workload, due: try LoadPlan.dueTimes(values, workload, seed),
            limit: ConcurrencyLimit(
                limit, rampMicroseconds: try LoadPlan.microseconds(values, "concurrency-ramp-duration")),
            cancellation: CancellationPlan(rate: try values.number("cancellation-rate", in: 0...1), seed: seed),
            sendNanoseconds: UInt64(try values.number("send-gap", in: 0...1e6) * 1000))
    }

    private static func slices(_ values: OptionValues, _ serving: ServingDeployment) throws -> [ServingSlice] {
        let prefills = try values.integer("prefill", in: 0...64)
        let decodes = try values.integer("decode", in: 0...64)
        guard (prefills > 0) == (decodes > 0) else {
            throw UsageError("--prefill and --decode go together: a prompt's state is handed from one to the other")
        }
        let attentions =
            values.text("attention") == nil ? (prefills > 0 ? 0 : 1) : try values.integer("attention", in: 0...64)
        guard attentions + decodes > 0 else { throw UsageError("--attention 0 needs --prefill and --decode") }
        let roles =
            Array(repeating: Part.both, count: attentions)
            + Array(repeating: .prefill, count: prefills) + Array(repeating: .decode, count: decodes)
        let names: [Part: String] = [.both: "attention", .prefill: "prefill", .decode: "decode"]
        return roles.enumerated().map { index, role in
            serving.slice(
                "\(names[role] ?? "")\(index)", part: role, firstRank: index * serving.ranks)
        }
    }

    /// Refuses a load of which one request alone does not fit; says so when not all that may be in flight do.
    private mutating func requireRoom() throws {
        let load = scenario.load
        var longest = 0
        for index in 0..<load.workload.count {
            let (input, output) = load.workload.lengths(at: index)
            longest = max(longest, input + output)
        }
        try serving.deployment.memory.require(requestsPerRank: 1, tokensPerRequest: longest)
        guard longest <= serving.pages * 64 else {
            throw UsageError(
                "the longest request has \(longest) tokens with its answer, --kv-tokens leaves \(serving.pages * 64)")
        }
        let holders = scenario.slices.filter { $0.part != .prefill }.count * serving.ranks
        let perRank = min(serving.slots, serving.pages / max(1, (longest + 63) / 64))
        guard let most = settings.maxConcurrency, most > holders * perRank else { return }
        notes.append(
            "\(most) requests of up to \(longest) tokens may be in flight; \(holders) ranks hold \(perRank) each, so up to "
                + "\(most - holders * perRank) wait for memory")
    }
}
