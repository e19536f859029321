/// Text to ids and back.
public protocol TokenCoding: Sendable {
    /// One more than the largest id. The model's vocabulary may be padded beyond it.
    var vocabularySize: Int { get }

    /// The ids of a text. With `allowSpecial` false, special tokens written out in the text are text like any other.
    /// Throws `limitExceeded` for a text that is too long or too hard to split.
    func encode(_ text: String, allowSpecial: Bool) throws(TokenizerError) -> [UInt32]

    /// What stands around a prompt that is not a chat.
    var frame: TokenFrame { get }

    /// The ids of what is said in a conversation: neither special tokens nor a chat format's marks of turns are matched in it.
    func encodeSaid(_ text: String) throws(TokenizerError) -> [UInt32]

    /// The id of a token that is matched in text before anything else, special or not.
    func addedID(of text: String) -> UInt32?

    /// The bytes an id stands for, nil if it stands for nothing. A character may be spread over several ids.
    func tokenBytes(_ id: UInt32) -> [UInt8]?

    /// The id that stands for exactly this text, if there is one.
    func id(of text: String) -> UInt32?

    /// True for the ids of special tokens.
    func isSpecial(_ id: UInt32) -> Bool
}

extension TokenCoding {
    /// The ids of a text; special tokens written out in it become their ids.
    ///
    /// - Throws: `TokenizerError` when the text is too long or cannot be split.
    public func encode(_ text: String) throws(TokenizerError) -> [UInt32] {
        try encode(text, allowSpecial: true)
    }

    /// The ids of a prompt that is not a chat: the text's, with the checkpoint's frame around them if asked for.
    ///
    /// - Throws: `TokenizerError` when the text is too long or cannot be split.
    public func encode(_ text: String, addingSpecialTokens: Bool) throws(TokenizerError) -> [UInt32] {
        let ids = try encode(text)
        return addingSpecialTokens ? frame.around(ids) : ids
    }

    /// The bytes of a sequence of ids. Ids that stand for nothing add nothing.
    public func decodeBytes(_ ids: some Sequence<UInt32>, skipSpecial: Bool = false) -> [UInt8] {
        var bytes: [UInt8] = []
        for id in ids where !(skipSpecial && isSpecial(id)) {
            if let part = tokenBytes(id) { bytes.append(contentsOf: part) }
        }
        return bytes
    }

    /// The text of a sequence of ids; bytes that are no UTF-8 become U+FFFD, one for each maximal broken part.
    public func decode(_ ids: some Sequence<UInt32>, skipSpecial: Bool = false) -> String {
        String(decoding: decodeBytes(ids, skipSpecial: skipSpecial), as: UTF8.self)
    }
}
