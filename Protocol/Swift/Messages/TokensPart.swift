import Serving

/// What comes of a stream of tokens (method generateTokens).
public enum TokensPart: Sendable, Equatable {
    /// One more token. The first one says how many tokens of the prompt had their state kept.
    case token(Token, cached: Int = 0)
    /// No token: how much work the instance has done since it started. While it grows, the request makes headway, or
    /// waits for those that do.
    case sign(work: UInt64)

    /// Metadata of the item frame.
    public func encoded() -> [UInt8] {
        switch self {
        case .token(let token, let cached):
            var writer = FieldWriter()
            token.encode(into: &writer)
            if cached > 0 { writer.put(4, UInt32(clamping: cached)) }
            return writer.bytes
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
        let reader = try FieldReader(bytes, known: 1...4)
        guard reader.slice(3) == nil else {
            self = .sign(work: try reader.integer(3, "work"))
            return
        }
        let cached = try reader.count(4, "cached_tokens", in: 0...MessageLimits.promptTokens, fallback: 0)
        self = .token(try Token(decoding: reader), cached: cached)
    }
}
