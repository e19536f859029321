import HybridModel
import RPC
import WireProtocol

/// What answers a layer's call: the experts, or something that says how long they would take.
public protocol ExpertsComputation: Sendable {
    /// The reply's body, if it has one, and the time the call takes on the simulated slice in picoseconds, 0 when that is
    /// not known yet.
    func forward(_ request: ExpertsRequest, _ body: AlignedBuffer?) async throws(RPCError) -> (AlignedBuffer?, UInt64)
    /// Counters for `status`.
    func counters() async -> [String: Int64]
}

/// A device, not this machine, that calls are timed on. This room knows none: whoever starts the service may hand one in.
public protocol CallDevice: Sendable {
    /// The picoseconds of a call of `rows` rows, 0 when nothing like it is known yet.
    ///
    /// - pairsPerExpert: rows of each expert of the shard; empty for an even share.
    /// - kernelNanoseconds: time that all calls have taken here so far.
    func picoseconds(rows: Int, pairsPerExpert: [Int], kernelNanoseconds: Int64) -> UInt64
    /// Runs a combined call with the real tensors in the device's own numerics, where it has been asked to.
    var kernel: (any CallKernel)? { get }
    /// Counters for `status`.
    var counters: [String: Int64] { get }
}

/// A kernel of a device that answers calls in the place of `ExpertsModel`.
public protocol CallKernel: Sendable {
    /// Runs a combined call of `rowCount` rows: `rows` and `out` are [rowCount, H], `experts` and `weights` [rowCount, k].
    ///
    /// - Returns: its picoseconds on the device.
    /// - Throws: an error whose description says what it cannot run.
    func run(
        _ model: ExpertsModel, layer: Int, rows: UnsafePointer<Float>, rowCount: Int, experts: UnsafePointer<Int32>,
        weights: UnsafePointer<Float>, into out: UnsafeMutablePointer<Float>
    ) throws -> UInt64
}
