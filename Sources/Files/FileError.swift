/// Why a file cannot be read. `description` is one sentence that names the file and what can be done.
public struct FileError: Error, Sendable, Equatable, CustomStringConvertible {
    /// What kind of thing is wrong.
    public enum Code: String, Sendable {
        /// There is nothing of that name.
        case missing
        /// A link whose target is not there, or that leads back to itself.
        case brokenLink
        /// It is there and cannot be opened or read.
        case unreadable
        /// It is not what its name says: a pointer, a web page, another format, empty, a folder.
        case otherKind
        /// It is larger than the limit.
        case tooLarge
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
