import Files
import Foundation
import JSON

/// What `generation_config.json` says about how a request is sampled that does not say so itself.
///
/// A member is nil where the file is silent. As in Hugging Face's `generate`, `do_sample: false` is greedy whatever
/// temperature stands beside it; differently from it a file without `do_sample` is not greedy, and `top_k` is off unless
/// the file has it. Fields that would change answers in ways that are not offered here are refused.
public struct GenerationDefaults: Sendable, Equatable {
    /// Temperature; 0 is greedy.
    public var temperature: Double?
    /// Keep the smallest set of likeliest tokens whose probability reaches this, 0 to 1.
    public var topP: Double?
    /// Keep the k likeliest; 0 keeps all.
    public var topK: Int?
    /// Drop tokens less likely than this times the likeliest, 0 to 1.
    public var minP: Double?
    /// Divides positive and multiplies negative logits of tokens in the history, 0.01 to 100.
    public var repetitionPenalty: Double?
    /// What the file says; false has made `temperature` 0.
    public var doSample: Bool?
    /// Ids that end generation, of this file alone; `ModelConfiguration.endTokenIDs` has those of `config.json` too.
    public var endTokenIDs: [UInt32] = []
    /// Sentences about fields that are not applied.
    public var notes: [String] = []

    /// Nothing is said.
    public init() {}

    static let file = "generation_config.json"

    /// The file's text, nil when the folder has none.
    static func text(_ directory: URL) throws(CheckpointError) -> Data? {
        let place = directory.appendingPathComponent(file)
        return OpenFile.isThere(place.path) ? try readFile(place, limit: 1 << 20) : nil
    }

    /// What the file in a checkpoint folder says; nothing when there is none.
    init(directory: URL, vocabularySize: Int) throws(CheckpointError) {
        guard let text = try Self.text(directory) else {
            self.init()
            return
        }
        try self.init(
            ConfigurationFields(json: text, path: Self.file),
            EndTokens(vocabularySize: vocabularySize, tokenID: TokenNames(directory).id))
    }

    init(_ fields: ConfigurationFields, _ endTokens: EndTokens) throws(CheckpointError) {
        endTokenIDs = try endTokens.ids(fields)
        temperature = try Self.number(fields, "temperature", in: 0...100)
        topP = try Self.number(fields, "top_p", in: 0...1)
        minP = try Self.number(fields, "min_p", in: 0...1)
        repetitionPenalty = try Self.number(fields, "repetition_penalty", in: 0.01...100)
        if fields.value("top_k") != nil { topK = max(0, try fields.integer("top_k", in: -1...Int(Int32.max))) }
        if fields.value("do_sample") != nil { doSample = try fields.flag("do_sample", fallback: true) }
        if doSample == false { temperature = 0 }
        for member in fields.members where member.value != .null { try check(member, fields) }
    }

    private static func number(
        _ fields: ConfigurationFields, _ name: String, in range: ClosedRange<Double>
    ) throws(CheckpointError) -> Double? {
        fields.value(name) == nil ? nil : try fields.number(name, in: range)
    }

    /// What is set, by its name in the file.
    public var members: [JSONValue.Member] {
        let numbers: [(String, Double?)] = [
            ("temperature", temperature), ("top_p", topP), ("min_p", minP), ("repetition_penalty", repetitionPenalty),
        ]
        var members = numbers.compactMap { name, value in
            value.map { JSONValue.Member(name, .number(Int(exactly: $0).map { "\($0)" } ?? "\($0)")) }
        }
        if let topK { members.append(.init("top_k", .number("\(topK)"))) }
        if let doSample { members.append(.init("do_sample", .bool(doSample))) }
        return members
    }

    // MARK: The other fields

    private static let applied: Set = [
        "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "do_sample", "eos_token_id",
    ]

    /// Fields that change no answer here: ids that are put nowhere, what is kept and returned in Python, how drafts of a
    /// second model are made, and what only a beam search reads, which is refused itself.
    private static let harmless: Set = [
        "_from_model_config", "_commit_hash", "assistant_confidence_threshold", "assistant_early_exit",
        "assistant_lookbehind", "assistant_temperature", "bos_token_id", "cache_config", "cache_implementation",
        "compile_config", "decoder_start_token_id", "disable_compile", "early_stopping", "is_assistant",
        "length_penalty", "low_memory", "max_matching_ngram_size", "max_time", "num_assistant_tokens",
        "num_assistant_tokens_schedule", "output_attentions", "output_hidden_states", "output_logits", "output_scores",
        "pad_token_id", "prefill_chunk_size", "prompt_lookup_num_tokens", "remove_invalid_values",
        "renormalize_logits", "return_dict_in_generate", "return_legacy_cache", "target_lookbehind",
        "transformers_version", "trust_remote_code", "use_cache",
    ]

    /// Fields that would change answers, with the only values that ask for what happens anyway.
    private static let neutral: [String: [JSONValue]] = [
        "begin_suppress_tokens": [.array([])], "bad_words_ids": [.array([])], "constraints": [.array([])],
        "custom_generate": [], "diversity_penalty": [.number("0")], "dola_layers": [],
        "encoder_no_repeat_ngram_size": [.number("0")], "encoder_repetition_penalty": [.number("1")],
        "epsilon_cutoff": [.number("0")], "eta_cutoff": [.number("0")], "exponential_decay_length_penalty": [],
        "force_words_ids": [.array([])], "forced_bos_token_id": [], "forced_decoder_ids": [.array([])],
        "forced_eos_token_id": [], "guidance_scale": [.number("1")], "min_length": [.number("0")],
        "min_new_tokens": [.number("0")], "no_repeat_ngram_size": [.number("0")], "num_beam_groups": [.number("1")],
        "num_beams": [.number("1")], "penalty_alpha": [.number("0")], "sequence_bias": [.object([]), .array([])],
        "stop_strings": [.array([])], "suppress_tokens": [.array([])], "token_healing": [.bool(false)], "top_h": [],
        "typical_p": [.number("1")], "watermarking_config": [],
    ]

    private mutating func check(_ member: JSONValue.Member, _ fields: ConfigurationFields) throws(CheckpointError) {
        let name = member.name
        guard !Self.applied.contains(name), !Self.harmless.contains(name) else { return }
        if let values = Self.neutral[name] {
            guard !values.contains(where: { Self.isSame($0, member.value) }) else { return }
            throw fields.refuse(
                name,
                "is \(ConfigurationFields.shown(member.value)), which would change answers and is not supported: take the field "
                    + "out, or ignore the file with --generation-config ignore")
        }
        switch name {
        case "max_length", "max_new_tokens":
            notes.append(
                "\(fields.path): \(name) is not applied: an answer ends at the request's max_tokens or at the context")
        case "num_return_sequences":
            notes.append("\(fields.path): num_return_sequences is not applied: a request says how many it wants with n")
        default: notes.append("\(fields.path): \(name.prefix(64)) is not known and not applied")
        }
    }

    private static func isSame(_ wanted: JSONValue, _ value: JSONValue) -> Bool {
        if let number = wanted.double { return value.double == number }
        return wanted == value
    }
}
