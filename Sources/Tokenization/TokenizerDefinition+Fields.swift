import JSON

/// The checks of the single fields.
extension TokenizerDefinition {
    static func malformed(_ field: String, _ what: String) -> TokenizerError {
        TokenizerError(.malformed, "The field \(field) \(what).")
    }

    static func unsupported(_ field: String, _ value: JSONValue?) -> TokenizerError {
        let text = value.map { String($0.text.prefix(100)) } ?? "missing"
        return TokenizerError(.unsupported, "The field \(field) is \(text); that is not supported.")
    }

    static func id(_ value: JSONValue?, _ field: String) throws(TokenizerError) -> UInt32 {
        guard case .number(let text) = value, let id = UInt32(text), id <= maximumID else {
            throw malformed(field, "is not an id from 0 to \(maximumID)")
        }
        return id
    }

    static func flag(
        _ object: JSONValue, _ name: String, _ field: String, default missing: Bool
    ) throws(TokenizerError) -> Bool {
        switch object[name] {
        case nil, .null: return missing
        case .bool(let value): return value
        default: throw malformed(field, "is neither true nor false")
        }
    }

    /// What is in the file and does nothing here. Whole texts are encoded, one at a time, so nothing is cut or filled up.
    static func notes(_ json: JSONValue) throws(TokenizerError) -> [String] {
        guard case .object(let members) = json else { throw TokenizerError(.malformed, "The JSON is no object.") }
        var notes: [String] = []
        for member in members where member.value != .null {
            switch member.name {
            case "truncation": notes.append("truncation is not applied: prompts are never cut")
            case "padding": notes.append("padding is not applied: prompts are never filled up")
            case "version", "added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder", "model": break
            default: notes.append("the field \(member.name.prefix(64)) is not known and not used")
            }
        }
        return notes
    }

    static func type(_ value: JSONValue, _ field: String) throws(TokenizerError) -> String {
        guard case .string(let type) = value["type"] else { throw malformed("\(field).type", "is not a string") }
        return type
    }

    /// A step by itself, or the steps of a Sequence under the name `list`.
    static func steps(_ value: JSONValue?, _ list: String, _ field: String) throws(TokenizerError) -> [JSONValue] {
        guard let value, value != .null else { return [] }
        guard try type(value, field) == "Sequence" else { return [value] }
        guard case .array(let steps) = value[list] else { throw malformed("\(field).\(list)", "is not an array") }
        return steps
    }

    static func checkNormalizer(_ value: JSONValue?) throws(TokenizerError) {
        guard try steps(value, "normalizers", "normalizer").isEmpty else { throw unsupported("normalizer", value) }
    }

    static func checkDecoder(_ value: JSONValue?) throws(TokenizerError) {
        let steps = try steps(value, "decoders", "decoder")
        guard steps.count == 1, try type(steps[0], "decoder") == "ByteLevel" else {
            throw unsupported("decoder", value)
        }
    }

    static func checkModel(_ model: JSONValue) throws(TokenizerError) {
        guard try type(model, "model") == "BPE" else { throw unsupported("model.type", model["type"]) }
        switch model["dropout"] {
        case nil, .null: break
        case .number(let text) where Double(text) == 0: break
        default: throw unsupported("model.dropout", model["dropout"])
        }
        for name in ["continuing_subword_prefix", "end_of_word_suffix"] {
            switch model[name] {
            case nil, .null, .string(""): continue
            default: throw unsupported("model.\(name)", model[name])
            }
        }
        guard try !flag(model, "byte_fallback", "model.byte_fallback", default: false) else {
            throw unsupported("model.byte_fallback", model["byte_fallback"])
        }
    }

    /// At most one Split, then ByteLevel.
    static func pattern(of value: JSONValue?) throws(TokenizerError) -> String? {
        let steps = try steps(value, "pretokenizers", "pre_tokenizer")
        guard let last = steps.last, steps.count <= 2, try type(last, "pre_tokenizer") == "ByteLevel" else {
            throw unsupported("pre_tokenizer", value)
        }
        guard try !flag(last, "add_prefix_space", "pre_tokenizer.add_prefix_space", default: true) else {
            throw TokenizerError(
                .unsupported, "The field pre_tokenizer.add_prefix_space is true; that is not supported.")
        }
        let splitsItself = try flag(last, "use_regex", "pre_tokenizer.use_regex", default: true)
        guard steps.count == 2 else { return splitsItself ? defaultPattern : nil }
        guard !splitsItself else { throw unsupported("pre_tokenizer.use_regex", .bool(true)) }
        return try splitPattern(steps[0])
    }

    private static func splitPattern(_ split: JSONValue) throws(TokenizerError) -> String {
        guard try type(split, "pre_tokenizer") == "Split" else { throw unsupported("pre_tokenizer", split) }
        guard split["behavior"] == .string("Isolated") else {
            throw unsupported("pre_tokenizer.behavior", split["behavior"])
        }
        guard try !flag(split, "invert", "pre_tokenizer.invert", default: false) else {
            throw unsupported("pre_tokenizer.invert", split["invert"])
        }
        guard case .string(let pattern) = split["pattern"]?["Regex"] else {
            throw unsupported("pre_tokenizer.pattern", split["pattern"])
        }
        return pattern
    }
}
