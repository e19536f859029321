/// A workload or an option that cannot be used; `description` is the sentence to print.
public struct LoadError: Error, Sendable, Equatable, CustomStringConvertible {
    /// One sentence that names what is wrong and the limit.
    public let description: String

    /// An error with its sentence.
    public init(_ description: String) { self.description = description }
}
