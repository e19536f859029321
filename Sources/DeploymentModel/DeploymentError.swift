/// A deployment that cannot be, or a parameter file that is broken; `description` is the sentence to print.
public struct DeploymentError: Error, Sendable, Equatable, CustomStringConvertible {
    /// What was refused.
    public enum Code: String, Sendable, Equatable {
        /// A dimension of the model.
        case shape
        /// The slice, the parallel sizes, or where experts lie.
        case layout
        /// Weights, pools and workspace do not fit the HBM of a device.
        case memory
        /// A parameter file.
        case parameters
        /// The fused kernel refuses the layer.
        case kernel
        /// The published figures, or the numbers they are compared with.
        case figures
    }

    /// What was refused.
    public let code: Code
    /// One sentence that names the field, the value and the limit; for memory, the sum.
    public let description: String

    /// An error with its sentence.
    public init(_ code: Code, _ description: String) {
        self.code = code
        self.description = description
    }
}
