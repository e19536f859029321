/// How far the reading of weights is.
public struct LoadProgress: Sendable, Equatable {
    /// What they are read for.
    public enum Phase: String, Sendable {
        /// To be computed with.
        case loading
        /// To tell them from those of other checkpoints: once for each state of the files.
        case digesting
    }

    /// What they are read for.
    public let phase: Phase
    /// Bytes that are done.
    public let done: Int
    /// Bytes in all.
    public let total: Int

    /// So far.
    public init(_ phase: Phase, done: Int, total: Int) {
        (self.phase, self.done, self.total) = (phase, done, total)
    }
}
