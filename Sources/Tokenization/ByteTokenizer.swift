/// The tokenizer of checkpoints that come without one: ids 0 to 255 are the bytes of the text. It serves any model whose
/// vocabulary has at least 256 ids; the others stand for nothing.
public struct ByteTokenizer: TokenCoding {
    /// Always 256.
    public let vocabularySize = 256

    /// Nothing.
    public let frame = TokenFrame()

    /// A tokenizer of bytes.
    public init() {}

    /// The bytes of the text.
    ///
    /// - Throws: nothing; the protocol lets others.
    public func encode(_ text: String, allowSpecial: Bool) throws(TokenizerError) -> [UInt32] {
        text.utf8.map { UInt32($0) }
    }

    /// The bytes of the text.
    ///
    /// - Throws: nothing; the protocol lets others.
    public func encodeSaid(_ text: String) throws(TokenizerError) -> [UInt32] {
        try encode(text, allowSpecial: false)
    }

    /// There is none.
    public func addedID(of text: String) -> UInt32? { nil }

    /// The byte itself.
    public func tokenBytes(_ id: UInt32) -> [UInt8]? { UInt8(exactly: id).map { [$0] } }

    /// The byte of a text of one byte.
    public func id(of text: String) -> UInt32? { text.utf8.count == 1 ? text.utf8.first.map { UInt32($0) } : nil }

    /// Never.
    public func isSpecial(_ id: UInt32) -> Bool { false }
}
