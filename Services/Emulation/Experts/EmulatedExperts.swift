import EventLoop
import ExpertsService
import HybridModel
import RPC
import WireProtocol

/// A shard of an emulated model: it checks a call as the experts would, and answers with their time and with nothing or
/// zeros. The caller lets the time pass.
struct EmulatedExperts: ExpertsComputation {
    /// Rows one call may have.
    static let maximumRows = 65_536

    let hidden: Int
    let layers: Range<Int>
    let times: SimulatedTimes?

    func forward(_ request: ExpertsRequest, _ body: AlignedBuffer?) async throws(RPCError) -> (AlignedBuffer?, UInt64) {
        guard layers.contains(Int(request.layer)) else {
            throw RPCError(.invalidArgument, "experts call: layer \(request.layer) has no experts")
        }
        guard request.hidden == UInt32(hidden) else {
            throw RPCError(.invalidArgument, "experts call: hidden is \(request.hidden), the model has \(hidden)")
        }
        let summary = LayerSimulation.Summary(rows: max(1, Int(request.rowCount)), pairsPerExpert: [])
        let time = UInt64(times?.time(summary, kernelNanoseconds: .max) ?? 0)
        guard let body, body.count > 0 else { return (nil, time) }
        guard body.count == request.bodyOffsets[5] else {
            throw RPCError(
                .invalidArgument, "experts call: body has \(body.count) bytes, not \(request.bodyOffsets[5]) or none")
        }
        let (reply, limit) = (4 * request.replyFloats, FrameLimits().body)
        guard reply <= limit else {
            throw RPCError(
                .limitExceeded, "experts call: its answer would have \(reply) bytes, the limit is \(limit)")
        }
        return (AlignedBuffer(count: reply), time)
    }

    func counters() async -> [String: Int64] {
        (times?.counters ?? [:]).merging(["emulated": 1, "kernel_nanoseconds": 0]) { $1 }
    }
}

extension ExpertsService {
    /// A shard of an emulated model.
    public convenience init(
        emulating model: EmulatedModel, shard: ExpertShard, instanceID: String, loop: any Loop,
        times: SimulatedTimes? = nil
    ) {
        let c = model.configuration
        self.init(
            compute: EmulatedExperts(
                hidden: c.hiddenSize, layers: c.denseLayerCount..<c.layerCount, times: times),
            memory: ["weight_bytes": 0, "scratch_bytes": 0], maximumRows: EmulatedExperts.maximumRows,
            shard: shard, fingerprint: model.fingerprint, instanceID: instanceID, loop: loop)
    }
}
