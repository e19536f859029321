/// A frame or message that breaks the protocol. `description` names the field and the limit.
public struct WireError: Error, Sendable, Equatable, CustomStringConvertible {
    /// One sentence.
    public let description: String

    /// An error with its sentence.
    public init(_ description: String) { self.description = description }
}
