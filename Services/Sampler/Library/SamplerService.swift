import ContentIdentity
import EventLoop
import HybridModel
import RPC
import ServiceSupport
import WireProtocol

/// The sampler service: final norm, output head and sampling. Answers `sample` and `status`; logits never leave it.
public final class SamplerService: ReplicaService {
    /// What it is made of beside the head.
    public let host: ReplicaHost
    private let compute: any SamplerComputation

    /// A service that answers and computes on `loop`, so that no call changes threads; it serves once `listen` was
    /// called.
    public convenience init(
        model: HeadModel, fingerprint: String, contents: ContentManifest? = nil, instanceID: String, loop: any Loop
    ) {
        self.init(
            compute: SamplerCompute(loop: loop, model: model),
            memory: [
                "weight_bytes": Int64(model.weightByteCount),
                "scratch_bytes": Int64(model.scratchByteCount + SamplerCompute.scratchByteCount(model)),
            ], maximumRows: model.maximumRows, fingerprint: fingerprint, contents: contents, instanceID: instanceID,
            loop: loop)
    }

    /// A sampler that answers with `compute`, on `loop`.
    ///
    /// - memory: bytes held for good, by name.
    /// - maximumRows: rows that a call may have.
    public init(
        compute: any SamplerComputation, memory: [String: Int64], maximumRows: Int, fingerprint: String,
        contents: ContentManifest? = nil, instanceID: String, loop: any Loop
    ) {
        self.compute = compute
        host = ReplicaHost(
            PeerIdentity(role: "sampler", instanceID: instanceID, fingerprint: fingerprint, contents: contents),
            subject: "the sampler does", memory: memory, maximumRows: maximumRows, loop: loop)
    }

    /// Answers a call.
    ///
    /// - Throws: `RPCError` that the caller is answered with.
    public func handle(_ call: ServerCall) async throws(RPCError) -> RPCPayload {
        guard call.method == .sample else { return try await answer(call) }
        var timing = host.calls.begin(call.trace)
        let request = try ServiceInputs.decoded { () throws(WireError) in
            try SampleRequest(decoding: call.metadata)
        }
        timing.read()
        let reply = try await compute.sample(request, call.body)
        timing.computed()
        let payload = RPCPayload(metadata: reply.encoded())
        host.calls.end(timing, rows: request.rows.count)
        return payload
    }

    /// The kernels' time.
    public func computeCounters() async -> [String: Int64] {
        ["kernel_nanoseconds": await compute.kernelNanoseconds]
    }
}
