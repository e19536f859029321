import JSON

/// Reads the ids that end generation: a number, a token's text, or a list of them in which null says nothing.
struct EndTokens {
    let vocabularySize: Int
    /// The id of a token that is named by its text.
    let tokenID: (String) throws(CheckpointError) -> UInt32?

    func ids(_ fields: ConfigurationFields, _ name: String = "eos_token_id") throws(CheckpointError) -> [UInt32] {
        guard let raw = fields.value(name) else { return [] }
        var ids: Set<UInt32> = []
        if case .array(let values) = raw {
            for value in values where value != .null { ids.insert(try id(value, fields, name)) }
        } else {
            ids.insert(try id(raw, fields, name))
        }
        return ids.sorted()
    }

    private func id(
        _ value: JSONValue, _ fields: ConfigurationFields, _ name: String
    ) throws(CheckpointError) -> UInt32 {
        if case .string(let text) = value {
            guard let id = try tokenID(text) else {
                throw fields.refuse(
                    name, "names \(ConfigurationFields.shown(value)), which is no token of tokenizer.json")
            }
            return id
        }
        guard case .number = value else {
            throw fields.refuse(
                name, "must be an id, a token's text or a list of them, not \(ConfigurationFields.shown(value))")
        }
        guard let id = value.integer.flatMap(UInt32.init(exactly:)), Int(id) < vocabularySize else {
            throw fields.refuse(
                name, "must be below vocab_size (\(vocabularySize)), not \(ConfigurationFields.shown(value))")
        }
        return id
    }
}
