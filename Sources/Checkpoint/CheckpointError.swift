/// Why a checkpoint cannot be served. `description` is one sentence that names the file, field or tensor and the limit.
public struct CheckpointError: Error, Sendable, Equatable, CustomStringConvertible {
    /// What kind of thing is wrong.
    public enum Code: String, Sendable {
        /// A file is missing or cannot be read.
        case unreadable
        /// A field of config.json is missing, out of range or asks for what is not supported.
        case configuration
        /// A safetensors file or index is malformed.
        case malformed
        /// A tensor is missing, or has another shape or type than the model needs.
        case tensor
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
