import JSON

/// What `tokenizer_config.json` adds to a tokenizer.json. Only what changes ids is read; the rest describes it to Python.
struct TokenizerConfiguration {
    private let json: JSONValue

    /// Parses the file's text.
    init(_ text: [UInt8]) throws(TokenizerError) {
        let name = "tokenizer_config.json"
        do throws(JSONError) { json = try JSONValue(parsing: text, allowsNonFinite: true) } catch {
            throw TokenizerError(.malformed, "\(name), \(error)")
        }
        guard case .object = json else { throw TokenizerError(.malformed, "\(name) is not a JSON object.") }
    }

    /// The frame of tokenizer.json as this file changes it, and a sentence for every change.
    func adjusted(
        _ frame: TokenFrame, id: (String) -> UInt32?
    ) throws(TokenizerError) -> (frame: TokenFrame, notes: [String]) {
        var (frame, notes) = (frame, [String]())
        if try flag("split_special_tokens") == true {
            throw TokenizerError(
                .unsupported, "tokenizer_config.json: split_special_tokens is true; that is not supported.")
        }
        for (name, part) in [("bos_token", \TokenFrame.prefix), ("eos_token", \TokenFrame.suffix)] {
            guard let isAdded = try flag("add_\(name)") else { continue }
            let token = token(name, id)
            if let token, !isAdded, frame[keyPath: part].contains(token) {
                frame[keyPath: part].removeAll { $0 == token }
                notes.append("add_\(name) is false, so post_processor of tokenizer.json does not add it either")
            }
            guard isAdded else { continue }
            guard let token else {
                throw TokenizerError(
                    .malformed,
                    "tokenizer_config.json: add_\(name) is true, but \(name) names no token of tokenizer.json.")
            }
            guard !frame[keyPath: part].contains(token) else { continue }
            frame[keyPath: part].insert(token, at: name == "bos_token" ? 0 : frame[keyPath: part].count)
        }
        if try flag("clean_up_tokenization_spaces") == true {
            notes.append("clean_up_tokenization_spaces is not applied: texts are given as their tokens spell them")
        }
        return (frame, notes)
    }

    private func flag(_ name: String) throws(TokenizerError) -> Bool? {
        switch json[name] {
        case nil, .null: return nil
        case .bool(let value): return value
        default: throw TokenizerError(.malformed, "tokenizer_config.json: \(name) is neither true nor false.")
        }
    }

    /// The id of a token that is named by its text, or by an object with a `content`.
    private func token(_ name: String, _ id: (String) -> UInt32?) -> UInt32? {
        guard case .string(let text) = json[name]?["content"] ?? json[name] else { return nil }
        return id(text)
    }
}
