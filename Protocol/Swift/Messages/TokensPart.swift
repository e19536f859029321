import Serving

/// What comes of a stream of tokens (method generateTokens).
public enum TokensPart: Sendable, Equatable {
    /// One more token.
    case token(Token)
    /// No token: how much work the instance has done since it started. While it grows, the request makes headway, or
    /// waits for those that do.
    case sign(work: UInt64)

    /// Metadata of the item frame.
    public func encoded() -> [UInt8] {
        switch self {
        case .token(let token): return token.encoded()
        case .sign(let work):
            var writer = FieldWriter()
            writer.put(3, work)
            return writer.bytes
        }
    }

    /// Parses metadata.
    ///
    /// - Throws: `WireError` that names the field.
    public init(decoding bytes: [UInt8]) throws(WireError) {
        let reader = try FieldReader(bytes, known: 1...3)
        guard reader.slice(3) == nil else {
            self = .sign(work: try reader.integer(3, "work"))
            return
        }
        self = .token(try Token(decoding: reader))
    }
}
