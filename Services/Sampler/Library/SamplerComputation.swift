import Emulation
import RPC
import WireProtocol

/// What chooses the tokens of a call: the head, or something that has nothing to choose from.
protocol SamplerComputation: Sendable {
    /// Time spent in it.
    var kernelNanoseconds: Int64 { get async }
    /// A token per row, or why there can be none.
    func sample(_ request: SampleRequest, _ body: AlignedBuffer?) async throws(RPCError) -> SampleReply
}

/// The sampler of an emulated model: dummy text, decided by seed and position, as sure of itself as can be.
struct EmulatedSampler: SamplerComputation {
    let hidden: Int

    var kernelNanoseconds: Int64 { 0 }

    func sample(_ request: SampleRequest, _ body: AlignedBuffer?) async throws(RPCError) -> SampleReply {
        guard request.hidden == UInt32(hidden) else {
            throw RPCError(.invalidArgument, "sample call has rows of \(request.hidden), the model has \(hidden)")
        }
        guard body == nil || body?.count == 0 || body?.count == 4 * hidden * request.rows.count else {
            throw RPCError(.invalidArgument, "sample call has a body of \(body?.count ?? 0) bytes")
        }
        return SampleReply(
            outcomes: request.rows.map { row in
                let token = TokenLogprob(
                    id: DummyText.token(seed: row.sampling.seed, position: row.position), logprob: 0)
                return .token(TokensItem(token: token, top: row.topLogprobs > 0 ? [token] : []))
            })
    }
}
