/// A program or slice the device refuses; `description` is the sentence to print and names the limit or the mistake.
public struct DeviceError: Error, Sendable, Equatable, CustomStringConvertible {
    /// What was refused.
    public enum Code: String, Sendable, Equatable {
        /// Vector memory does not hold the program's buffers.
        case vectorMemory = "vector_memory"
        /// Scalar memory does not hold the program's buffers.
        case scalarMemory = "scalar_memory"
        /// High-bandwidth memory does not hold the program's buffers.
        case highBandwidthMemory = "high_bandwidth_memory"
        /// Two accesses to the same bytes that no wait orders.
        case race
        /// A semaphore that the program leaves non-zero.
        case semaphore
        /// Cores that wait for each other, or for a copy that nobody issued.
        case deadlock
        /// Rows, bytes or a device that do not exist.
        case bounds
        /// A slice or a number of devices.
        case topology
        /// A parameter file or a parameter's value.
        case parameters
    }

    /// What was refused.
    public let code: Code
    /// One sentence that names the place, the value and the limit.
    public let description: String

    /// An error with its sentence.
    public init(_ code: Code, _ description: String) {
        self.code = code
        self.description = description
    }
}
