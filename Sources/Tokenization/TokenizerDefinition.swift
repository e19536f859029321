import JSON

/// What a tokenizer.json says, checked: every field that would change ids is either understood or refused by name.
struct TokenizerDefinition {
    /// Largest id accepted, so that a hostile file cannot ask for a huge table.
    static let maximumID: UInt32 = 1 << 22

    /// GPT-2's pattern, which ByteLevel applies itself when `use_regex` is set.
    static let defaultPattern =
        #"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"#

    /// Bytes of each id; nil where the id stands for nothing.
    private(set) var tokens: [[UInt8]?] = []
    /// Vocabulary entries of the byte alphabet by the bytes they stand for.
    private(set) var idsByBytes: [[UInt8]: UInt32] = [:]
    /// Id of each single byte.
    private(set) var byteIDs: [UInt32] = []
    /// Pair of ids (first in the upper half) to rank (upper half) and merged id.
    private(set) var merges = WordTable()
    /// Tokens matched before everything else.
    private(set) var added: [AddedToken] = []
    /// Where texts are cut; nil for nowhere.
    private(set) var pattern: String?
    /// True when a piece that is an entry itself is not put together by merges.
    private(set) var ignoresMerges = false
    /// Ids that stand around a whole text.
    private(set) var frame = TokenFrame()
    /// Sentences about what the file asks for and does not get, and why that changes no id.
    private(set) var notes: [String] = []

    init(_ json: JSONValue) throws(TokenizerError) {
        notes = try Self.notes(json)
        try Self.checkNormalizer(json["normalizer"])
        pattern = try Self.pattern(of: json["pre_tokenizer"])
        try Self.checkDecoder(json["decoder"])
        guard let model = json["model"] else { throw Self.malformed("model", "is missing") }
        try Self.checkModel(model)
        ignoresMerges = try Self.flag(model, "ignore_merges", "model.ignore_merges", default: false)
        let rawIDs = try readVocabulary(model["vocab"])
        try readMerges(model["merges"], rawIDs)
        try readAddedTokens(json["added_tokens"], rawIDs)
        frame = try Self.frame(of: json["post_processor"])
        for id in frame.prefix + frame.suffix where Int(id) >= tokens.count || tokens[Int(id)] == nil {
            throw Self.malformed("post_processor", "adds the id \(id), which stands for nothing")
        }
    }

    private mutating func readVocabulary(_ field: JSONValue?) throws(TokenizerError) -> [[UInt8]: UInt32] {
        guard case .object(let entries) = field else { throw Self.malformed("model.vocab", "is not an object") }
        var rawIDs: [[UInt8]: UInt32] = [:]
        rawIDs.reserveCapacity(entries.count)
        idsByBytes.reserveCapacity(entries.count)
        for entry in entries {
            let id = try Self.id(entry.value, "model.vocab[\"\(entry.name)\"]")
            rawIDs[Array(entry.name.utf8)] = id
            let bytes = ByteAlphabet.bytes(of: entry.name)
            try define(id, bytes ?? Array(entry.name.utf8), "model.vocab[\"\(entry.name)\"]")
            if let bytes { idsByBytes[bytes] = id }
        }
        for byte in UInt8.min...UInt8.max {
            guard let id = idsByBytes[[byte]] else {
                throw TokenizerError(.unsupported, "The field model.vocab has no entry for the byte \(byte).")
            }
            byteIDs.append(id)
        }
        return rawIDs
    }

    private mutating func define(_ id: UInt32, _ bytes: [UInt8], _ field: String) throws(TokenizerError) {
        while tokens.count <= Int(id) { tokens.append(nil) }
        guard tokens[Int(id)] == nil else { throw Self.malformed(field, "has an id that is taken, \(id)") }
        tokens[Int(id)] = bytes
    }

    private mutating func readMerges(
        _ field: JSONValue?, _ rawIDs: [[UInt8]: UInt32]
    ) throws(TokenizerError) {
        guard case .array(let list) = field else { throw Self.malformed("model.merges", "is not an array") }
        merges = WordTable(minimumCapacity: list.count)
        for (rank, entry) in list.enumerated() {
            guard let (first, second) = Self.pair(entry) else {
                throw Self.malformed("model.merges[\(rank)]", "is neither two strings nor one with a space between")
            }
            guard let left = rawIDs[first], let right = rawIDs[second], let whole = rawIDs[first + second] else {
                throw Self.malformed("model.merges[\(rank)]", "names a part or a whole that model.vocab lacks")
            }
            merges[UInt64(left) << 32 | UInt64(right)] = UInt64(rank) << 32 | UInt64(whole)
        }
    }

    private static func pair(_ entry: JSONValue) -> ([UInt8], [UInt8])? {
        switch entry {
        case .array(let parts):
            guard parts.count == 2, case .string(let first) = parts[0], case .string(let second) = parts[1] else {
                return nil
            }
            return (Array(first.utf8), Array(second.utf8))
        case .string(let text):
            let parts = text.utf8.split(separator: UInt8(ascii: " "), omittingEmptySubsequences: false)
            return parts.count == 2 ? (Array(parts[0]), Array(parts[1])) : nil
        default: return nil
        }
    }

    private mutating func readAddedTokens(
        _ field: JSONValue?, _ rawIDs: [[UInt8]: UInt32]
    ) throws(TokenizerError) {
        guard let field, field != .null else { return }
        guard case .array(let list) = field else { throw Self.malformed("added_tokens", "is not an array") }
        var contents = Set<[UInt8]>()
        for (index, entry) in list.enumerated() {
            let name = "added_tokens[\(index)]"
            let token = try Self.addedToken(entry, name)
            guard contents.insert(token.content).inserted else { throw Self.malformed(name, "repeats a content") }
            if let id = rawIDs[token.content] {
                guard id == token.id else {
                    throw Self.malformed(name, "has the id \(token.id), but in model.vocab its content has \(id)")
                }
                tokens[Int(id)] = token.content
            } else {
                try define(token.id, token.content, name)
            }
            added.append(token)
        }
    }

    private static func addedToken(_ entry: JSONValue, _ name: String) throws(TokenizerError) -> AddedToken {
        guard case .string(let text) = entry["content"], (1...1024).contains(text.utf8.count) else {
            throw malformed("\(name).content", "is not a string of 1 to 1024 bytes")
        }
        if try flag(entry, "single_word", "\(name).single_word", default: false) {
            throw TokenizerError(.unsupported, "The field \(name).single_word is true; that is not supported.")
        }
        let special = try flag(entry, "special", "\(name).special", default: false)
        return AddedToken(
            id: try id(entry["id"], "\(name).id"), content: Array(text.utf8), isSpecial: special,
            isNormalized: try flag(entry, "normalized", "\(name).normalized", default: !special),
            stripsLeft: try flag(entry, "lstrip", "\(name).lstrip", default: false),
            stripsRight: try flag(entry, "rstrip", "\(name).rstrip", default: false))
    }
}
