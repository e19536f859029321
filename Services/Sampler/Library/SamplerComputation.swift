import RPC
import Serving
import WireProtocol

/// What chooses the tokens of a call: the head, or something that has nothing to choose from.
public protocol SamplerComputation: Sendable {
    /// Time spent in it.
    var kernelNanoseconds: Int64 { get async }
    /// A token per row, or why there can be none.
    func sample(_ request: SampleRequest, _ body: AlignedBuffer?) async throws(RPCError) -> SampleReply
}
