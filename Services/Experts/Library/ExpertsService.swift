import ContentIdentity
import EventLoop
import HybridModel
import RPC
import ServiceSupport
import WireProtocol

/// The experts service: routed experts of one shard and the shared expert. Answers `expertsForward` and `status`; keeps
/// nothing between calls.
public final class ExpertsService: ReplicaService {
    /// What it is made of beside the experts.
    public let host: ReplicaHost
    private let compute: any ExpertsComputation

    /// A service that answers and computes on `loop`, so that no call changes threads; it serves once `listen` was
    /// called.
    ///
    /// - device: a device that calls are timed on, or nil to tell no times.
    public convenience init(
        model: sending ExpertsModel, fingerprint: String, contents: ContentManifest? = nil, instanceID: String,
        loop: any Loop, device: (any CallDevice)? = nil
    ) {
        let memory = [
            "weight_bytes": Int64(model.weightByteCount),
            "scratch_bytes": Int64(model.scratchByteCount + ExpertsCompute.scratchByteCount(model)),
        ]
        let (rows, shard) = (model.maximumRows, model.shard)
        self.init(
            compute: ExpertsCompute(loop: loop, model: model, device: device), memory: memory, maximumRows: rows,
            shard: shard, fingerprint: fingerprint, contents: contents,
            instanceID: instanceID, loop: loop)
    }

    /// A service that answers with `compute`, on `loop`.
    ///
    /// - memory: bytes held for good, by name.
    /// - maximumRows: rows that a call may have.
    public init(
        compute: any ExpertsComputation, memory: [String: Int64], maximumRows: Int, shard: ExpertShard,
        fingerprint: String, contents: ContentManifest? = nil, instanceID: String, loop: any Loop
    ) {
        self.compute = compute
        host = ReplicaHost(
            PeerIdentity(
                role: "experts", instanceID: instanceID, fingerprint: fingerprint,
                layout: "experts shard \(shard.index) of \(shard.count)", contents: contents),
            subject: "experts do", memory: memory, maximumRows: maximumRows, loop: loop)
    }

    /// Answers a call.
    ///
    /// - Throws: `RPCError` that the caller is answered with.
    public func handle(_ call: ServerCall) async throws(RPCError) -> RPCPayload {
        guard call.method == .expertsForward else { return try await answer(call) }
        var timing = host.calls.begin(call.trace)
        let request = try ServiceInputs.decoded { () throws(WireError) in
            try ExpertsRequest(decoding: call.metadata)
        }
        timing.read()
        let (reply, time) = try await compute.forward(request, call.body)
        timing.computed()
        let payload = RPCPayload(metadata: ExpertsReply(simulatedPicoseconds: time).encoded(), body: reply)
        host.calls.end(timing, layer: Int(request.layer), rows: Int(request.rowCount), simulatedPicoseconds: time)
        return payload
    }

    /// The kernels' time, and what was simulated.
    public func computeCounters() async -> [String: Int64] { await compute.counters() }
}
