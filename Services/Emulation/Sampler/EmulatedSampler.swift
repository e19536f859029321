import EventLoop
import RPC
import SamplerService
import ServiceSupport
import Serving
import WireProtocol

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
                let id = DummyText.token(seed: row.sampling.seed, position: row.position)
                let top = row.topLogprobs > 0 ? [Token.Alternative(id: id, logprob: 0)] : []
                return .token(Token(id: id, logprob: 0, top: top))
            })
    }
}

extension SamplerService {
    /// The sampler of an emulated model.
    public convenience init(emulating model: EmulatedModel, instanceID: String, loop: any Loop) {
        self.init(
            compute: EmulatedSampler(hidden: model.configuration.hiddenSize),
            memory: ["weight_bytes": 0, "scratch_bytes": 0], maximumRows: SampleRequest.maximumRows,
            fingerprint: model.fingerprint, instanceID: instanceID, loop: loop)
    }
}

extension ServiceEmulation {
    /// The sampler that the command line asks to be emulated, and what it is.
    ///
    /// - Throws: `UsageError` or `CheckpointError` with the sentence to print.
    public static func sampler(_ values: OptionValues, _ hot: UVLoop) throws -> (SamplerService, String) {
        let model = try EmulatedModel(try values.required("model"))
        let service = SamplerService(
            emulating: model, instanceID: ServiceProcess.instanceID("sampler"), loop: hot)
        return (service, "emulating \(model.name)")
    }
}
