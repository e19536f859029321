/// Why a tokenizer cannot be built or a text cannot be encoded. `description` is one sentence that names the field and
/// the limit.
public struct TokenizerError: Error, Sendable, Equatable, CustomStringConvertible {
    /// What kind of thing is wrong.
    public enum Code: String, Sendable {
        /// The file is missing, cannot be read or is too large.
        case unreadable
        /// The file is not JSON, or a field is missing, of another type or contradicts another.
        case malformed
        /// The file asks for something that is not implemented; encoding without it would give wrong ids.
        case unsupported
        /// A text is longer than the limit, or its splitting took more steps than the limit.
        case limitExceeded
    }

    /// What kind of thing is wrong.
    public let code: Code
    /// One sentence.
    public let description: String

    /// An error with its sentence.
    public init(_ code: Code, _ description: String) {
        self.code = code
        self.description = description
    }
}
