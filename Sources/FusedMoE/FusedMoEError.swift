/// A layer, tile or run that cannot be done; `description` is the sentence to print and names the limit.
public struct FusedMoEError: Error, Sendable, Equatable, CustomStringConvertible {
    /// What was refused.
    public enum Code: String, Sendable, Equatable {
        /// A dimension, a token count or the number of devices.
        case problem
        /// A kernel option or a combination of them.
        case option
        /// A tile size or a combination of them.
        case tile
        /// Vector memory does not hold the tile's buffers.
        case vectorMemory = "vector_memory"
        /// Scalar memory does not hold the routing metadata.
        case scalarMemory = "scalar_memory"
        /// A routing table or pattern.
        case routing
        /// Tensors that do not have the problem's shape.
        case tensors
        /// A parameter file.
        case parameters
        /// The simulated device refused the program: a copy that was not waited for, or overwritten in flight.
        case race
        /// A semaphore that does not balance.
        case semaphore
        /// Devices that wait for each other for ever.
        case deadlock
        /// Anything else the simulated device refused, its topology included.
        case device
    }

    /// What was refused.
    public let code: Code
    /// One sentence that names the field, the value and the limit.
    public let description: String
    /// Bytes that would have been needed, when a memory was too small.
    public let neededBytes: Int?

    /// An error with its sentence.
    public init(_ code: Code, _ description: String, neededBytes: Int? = nil) {
        self.code = code
        self.description = description
        self.neededBytes = neededBytes
    }
}
