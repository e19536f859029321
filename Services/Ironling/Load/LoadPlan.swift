import Foundation
import LoadTesting
import ServiceSupport
import Tokenization

/// What the command line asks for, checked.
struct LoadPlan: Sendable {
    /// Requests in flight when `--max-concurrency` does not say: what the gateway takes by default.
    static let concurrencyBound = 4096
    private static let fileBytes = 1 << 30

    var settings = LoadSettings()
    var workload: any Workload
    /// When each request is due, microseconds.
    var due: [UInt64]
    var limit: ConcurrencyLimit
    var cancellation: CancellationPlan
    var warmUpRequests: Int
    var maxDurationMicroseconds: UInt64?
    var timeoutMicroseconds: UInt64
    var ignoresEnd: Bool
    /// Steady streams beside the load.
    var probe: (any Workload)?

    /// Reads `values`; random token ids are below `vocabulary`.
    init(_ values: OptionValues, vocabulary: Int) throws {
        let seed = UInt64(try values.integer("seed", in: 0...Int.max))
        let dataset = try Self.dataset(values)
        workload = try Self.workload(dataset, values, UInt32(clamping: vocabulary), seed)
        due = try Self.dueTimes(values, workload, seed)
        limit = ConcurrencyLimit(
            try values.text("max-concurrency") == nil
                ? Self.concurrencyBound : values.integer("max-concurrency", in: 1...Self.concurrencyBound),
            rampMicroseconds: try Self.microseconds(values, "concurrency-ramp-duration"))
        cancellation = CancellationPlan(rate: try values.number("cancellation-rate", in: 0...1), seed: seed)
        warmUpRequests = try values.integer("warmup-requests", in: 0...1000)
        let duration = try Self.microseconds(values, "max-duration")
        maxDurationMicroseconds = duration == 0 ? nil : duration
        timeoutMicroseconds = UInt64(try values.number("request-timeout", in: 0.01...86_400) * 1e6)
        ignoresEnd = !values.isOn("disable-ignore-eos")
        probe = try Self.probe(values, UInt32(clamping: vocabulary), seed)
        settings = try Self.settings(values, dataset, workload, due)
    }

    /// What the report repeats of the command line.
    static func settings(
        _ values: OptionValues, _ dataset: String, _ workload: any Workload, _ due: [UInt64]
    ) throws -> LoadSettings {
        var settings = LoadSettings()
        settings.dataset = dataset
        settings.requestCount = workload.count
        settings.requestRate = try rate(values)
        settings.burstiness = try values.number("burstiness", in: 0.01...1000)
        settings.maxConcurrency =
            values.text("max-concurrency") == nil
            ? nil : try values.integer("max-concurrency", in: 1...concurrencyBound)
        settings.cancellationRate = try values.number("cancellation-rate", in: 0...1)
        settings.seed = UInt64(try values.integer("seed", in: 0...Int.max))
        settings.serviceLevels = try ServiceLevel.list(values.text("goodput") ?? "")
        settings.isOpenLoop = due.contains { $0 > 0 }
        settings.arrivals = arrivals(values, workload)
        settings.conversations = (workload as? TurnsWorkload)?.conversations
        if dataset.hasPrefix("random") { settings.randomLengths = try randomLengths(values) }
        return settings
    }

    static func arrivals(_ values: OptionValues, _ workload: any Workload) -> String? {
        if let strategy = values.text("ramp-up-strategy") {
            let ends = ["ramp-up-start-rps", "ramp-up-end-rps"].compactMap { values.text($0) }
            return ends.joined(separator: " to ") + ", \(strategy)"
        }
        return workload.dueTimes == nil ? nil : "as recorded"
    }

    static func randomLengths(
        _ values: OptionValues
    ) throws(UsageError) -> (input: LengthRange, output: LengthRange) {
        let ratio = try values.number("random-range-ratio", in: 0...1)
        let lengths = 1...TraceWorkload.tokenLimit
        return (
            LengthRange(try values.integer("random-input-len", in: lengths), ratio: ratio),
            LengthRange(try values.integer("random-output-len", in: lengths), ratio: ratio)
        )
    }

    static func microseconds(_ values: OptionValues, _ name: String) throws(UsageError) -> UInt64 {
        UInt64(try values.number(name, in: 0...86_400) * 1e6)
    }

    static func dataset(_ values: OptionValues) throws(UsageError) -> String {
        switch try values.required("dataset-name") {
        case "random": "random"
        case "random-ids": "random-ids"
        case "shared-prefix", "generated-shared-prefix": "shared-prefix"
        case "turns": "turns"
        case "trace", "mooncake": "trace"
        case "sharegpt": "sharegpt"
        case let other:
            throw UsageError(
                "--dataset-name is random, random-ids, shared-prefix, turns, trace or sharegpt, not \"\(other)\"")
        }
    }

    static func workload(
        _ dataset: String, _ values: OptionValues, _ vocabulary: UInt32, _ seed: UInt64
    ) throws -> any Workload {
        let count = try values.integer("num-prompts", in: 1...1_000_000)
        let lengths = 1...TraceWorkload.tokenLimit
        switch dataset {
        case "shared-prefix":
            return SharedPrefixWorkload(
                groupCount: try values.integer("gsp-num-groups", in: 1...10_000),
                perGroup: try values.integer("gsp-prompts-per-group", in: 1...10_000),
                prefixTokens: try values.integer("gsp-system-prompt-len", in: lengths),
                questionTokens: try values.integer("gsp-question-len", in: lengths),
                outputTokens: try values.integer("gsp-output-len", in: lengths), idsBelow: vocabulary, seed: seed)
        case "turns":
            return TurnsWorkload(
                conversations: try values.integer("turns-conversations", in: 1...10_000),
                turns: try values.integer("turns-per-conversation", in: 1...1000),
                firstTokens: try values.integer("turns-first-len", in: lengths),
                questionTokens: try values.integer("turns-question-len", in: lengths),
                outputTokens: try values.integer("turns-output-len", in: lengths), idsBelow: vocabulary, seed: seed)
        case "trace":
            return try named(values) { data throws(LoadError) in
                try TraceWorkload(
                    parsing: data, limit: count, slowdown: try number(values, "mooncake-slowdown-factor"),
                    lengthScale: try number(values, "trace-length-scale"), idsBelow: vocabulary, seed: seed)
            }
        case "sharegpt": return try conversations(values, count, seed)
        default:
            let (input, output) = try randomLengths(values)
            let content: RandomWorkload.Content =
                dataset == "random" ? .text(fit: try fit(values)) : .ids(below: vocabulary)
            return RandomWorkload(count: count, content: content, input: input, output: output, seed: seed)
        }
    }

    private static func number(_ values: OptionValues, _ name: String) throws(LoadError) -> Double {
        do throws(UsageError) { return try values.number(name, in: 0.001...1000) } catch {
            throw LoadError(error.description)
        }
    }

    private static func conversations(_ values: OptionValues, _ count: Int, _ seed: UInt64) throws -> any Workload {
        let tokenizer = try tokenizer(values)
        let output =
            values.text("sharegpt-output-len") == nil
            ? nil : try values.integer("sharegpt-output-len", in: 1...TraceWorkload.tokenLimit)
        let inputLimit = try values.integer("sharegpt-input-limit", in: 1...TraceWorkload.tokenLimit)
        return try named(values) { data throws(LoadError) in
            try ConversationWorkload(
                parsing: data, count: count, outputTokens: output, inputLimit: inputLimit, seed: seed
            ) { text in
                try tokenizer?.encode(text, allowSpecial: false).count ?? ConversationWorkload.estimate(text)
            }
        }
    }

    /// Reads `--dataset-path` and names it in what goes wrong.
    private static func named<Value>(_ values: OptionValues, _ body: (Data) throws(LoadError) -> Value) throws -> Value
    {
        let path = try values.required("dataset-path")
        let size = (try? FileManager.default.attributesOfItem(atPath: path)[.size] as? Int) ?? 0
        guard size <= fileBytes, let data = FileManager.default.contents(atPath: path) else {
            throw UsageError("--dataset-path \(path) cannot be read or has more than \(fileBytes) bytes")
        }
        do throws(LoadError) { return try body(data) } catch { throw UsageError("\(path): \(error)") }
    }

    private static func tokenizer(_ values: OptionValues) throws -> Tokenizer? {
        guard let folder = values.text("tokenizer") ?? values.text("model") else { return nil }
        let file = URL(fileURLWithPath: folder).appendingPathComponent("tokenizer.json")
        guard FileManager.default.fileExists(atPath: file.path) || values.text("tokenizer") != nil else { return nil }
        return try Tokenizer(contentsOf: file)
    }

    /// Cuts a text to a number of tokens when a tokenizer is at hand.
    private static func fit(_ values: OptionValues) throws -> @Sendable (String, Int) -> String {
        guard let tokenizer = try tokenizer(values) else { return { text, _ in text } }
        return { text, count in
            guard let ids = try? tokenizer.encode(text, allowSpecial: false) else { return text }
            return tokenizer.decode(Array(ids.prefix(count)), skipSpecial: true)
        }
    }

    static func rate(_ values: OptionValues) throws(UsageError) -> Double? {
        try values.required("request-rate") == "inf" ? nil : values.number("request-rate", in: 0.001...100_000)
    }

    static func dueTimes(_ values: OptionValues, _ workload: any Workload, _ seed: UInt64) throws -> [UInt64] {
        var rate = try rate(values).map { ArrivalProcess.Rate.constant($0) }
        if let strategy = values.text("ramp-up-strategy") {
            guard rate == nil else { throw UsageError("--ramp-up-strategy and --request-rate exclude each other") }
            let from = try values.number("ramp-up-start-rps", in: 0.001...100_000)
            let to = try values.number("ramp-up-end-rps", in: 0.001...100_000)
            switch strategy {
            case "linear": rate = .linear(from: from, to: to)
            case "exponential": rate = .exponential(from: from, to: to)
            default: throw UsageError("--ramp-up-strategy is linear or exponential, not \"\(strategy)\"")
            }
        }
        let burstiness = try values.number("burstiness", in: 0.01...1000)
        if rate == nil, let recorded = workload.dueTimes { return recorded }
        return ArrivalProcess(rate ?? .unlimited, burstiness: burstiness, seed: seed).times(count: workload.count)
    }

    private static func probe(_ values: OptionValues, _ vocabulary: UInt32, _ seed: UInt64) throws -> (any Workload)? {
        let streams = try values.integer("probe-stream", in: 0...1024)
        guard streams > 0 else { return nil }
        return RandomWorkload(
            count: streams, content: .ids(below: vocabulary),
            input: LengthRange(try values.integer("probe-input-len", in: 1...TraceWorkload.tokenLimit)),
            output: LengthRange(try values.integer("probe-output-len", in: 2...TraceWorkload.tokenLimit)),
            seed: seed &+ 1)
    }
}
