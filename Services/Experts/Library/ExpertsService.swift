import Checkpoint
import EventLoop
import Foundation
import HybridModel
import Numerics
import Observability
import RPC
import ServiceSupport
import WireProtocol

/// The experts service: routed experts of one shard and the shared expert. Answers `expertsForward` and `status`; keeps
/// nothing between calls.
public final class ExpertsService: RPCHandler, RunningService, @unchecked Sendable {
    /// Its command line.
    public static let options = CommandLineOptions(
        program: "ironling-experts",
        summary: "Holds the routed experts of one shard and the shared expert, and answers MoE layers.",
        options: ServiceProcess.commonOptions + [
            CommandLineOption("port", value: "PORT", help: "TCP port to listen on", fallback: "7002"),
            CommandLineOption("shard", value: "I", help: "which shard this process is, from 0", fallback: "0"),
            CommandLineOption("shards", value: "N", help: "processes that share the experts", fallback: "1"),
            CommandLineOption("maximum-rows", value: "N", help: "rows one call may have", fallback: "1024"),
        ])

    /// "experts".
    public let name = "experts"
    private let compute: ExpertsCompute
    private let identity: PeerIdentity
    private let loop: any Loop
    private var server: RPCServer?

    /// A service that answers on `loop` and computes on `hot`; it serves once `listen` was called.
    public init(model: ExpertsModel, fingerprint: String, instanceID: String, loop: any Loop, hot: any Loop) {
        compute = ExpertsCompute(loop: hot, model: model)
        identity = PeerIdentity(
            role: "experts", instanceID: instanceID, fingerprint: fingerprint,
            layout: "experts shard \(model.shard.index) of \(model.shard.count)")
        self.loop = loop
    }

    /// Accepts calls of attention instances that share `secret`; returns the port. On the loop.
    public func listen(host: String, port: Int, secret: [UInt8]) throws(LoopError) -> Int {
        let server = RPCServer(
            loop: loop, identity: identity, secret: secret, roles: ["attention", "client"], handler: self)
        self.server = server
        return try server.listen(host: host, port: port)
    }

    /// Loads the shard and listens.
    public static func start(_ values: OptionValues, _ loop: UVLoop) async throws -> ExpertsService {
        let checkpoint = try ServiceInputs.checkpoint(values)
        let shards = try values.integer("shards", in: 1...checkpoint.configuration.expertCount)
        let shard = ExpertShard(index: try values.integer("shard", in: 0...shards - 1), count: shards)
        let model = try ExpertsModel(
            checkpoint: checkpoint, shard: shard,
            team: ThreadTeam(threadCount: try values.integer("threads", in: 1...256)),
            maximumRows: try values.integer("maximum-rows", in: 1...65536))
        try ServiceProcess.logger(values, service: "experts").info(
            "memory",
            [
                "weight_bytes": LogValue(model.weightByteCount),
                "scratch_bytes": LogValue(model.scratchByteCount + ExpertsCompute.scratchByteCount(model)),
                "maximum_rows": LogValue(model.maximumRows),
            ])
        let hot = UVLoop()
        hot.start()
        let service = ExpertsService(
            model: model, fingerprint: checkpoint.fingerprint, instanceID: "experts-\(getpid())", loop: loop, hot: hot)
        let port = try service.listen(
            host: try values.required("host"), port: try values.integer("port", in: 0...65535),
            secret: try ServiceProcess.secret(values))
        ServiceProcess.announce(
            "ironling-experts ready on port \(port): experts \(model.experts) of every MoE layer, "
                + "\(model.weightByteCount >> 10) KiB of weights")
        return service
    }

    /// Answers a call.
    public func handle(_ call: ServerCall) async throws(RPCError) -> RPCPayload {
        switch call.method {
        case .expertsForward:
            let request = try ServiceInputs.decoded { () throws(WireError) in
                try ExpertsRequest(decoding: call.metadata)
            }
            guard let body = call.body else { throw RPCError(.invalidArgument, "experts call has no body") }
            return RPCPayload(body: try await compute.forward(request, body))
        case .status:
            return RPCPayload(metadata: StatusReply(counters: await counters()).encoded())
        default: throw RPCError(.unknownMethod, "experts do not answer method \(call.method.rawValue)")
        }
    }

    /// Those of the server, the kernels' time and the limit on rows.
    public func counters() async -> [String: Int64] {
        var counters = server?.counters ?? [:]
        counters["kernel_nanoseconds"] = await compute.kernelNanoseconds
        counters["maximum_rows"] = Int64(compute.maximumRows)
        return counters
    }

    /// Closes every connection at once. On the loop.
    public func close() { server?.close() }

    /// Stops taking calls and lets those that run finish.
    public func drain() async { await server?.drain(withinMicroseconds: 10_000_000) }
}

/// Runs the experts on a loop of its own, one call at a time.
actor ExpertsCompute {
    private nonisolated let loop: any Loop
    private let model: ExpertsModel
    private let pairs: AlignedBuffer
    private let shared: AlignedBuffer
    private var kernelTime = Stopwatch()

    /// Time spent in the experts themselves.
    var kernelNanoseconds: Int64 { kernelTime.nanoseconds }

    nonisolated var unownedExecutor: UnownedSerialExecutor { loop.asUnownedSerialExecutor() }

    init(loop: any Loop, model: ExpertsModel) {
        self.loop = loop
        self.model = model
        let c = model.configuration
        pairs = AlignedBuffer(count: 4 * model.maximumRows * c.expertsPerToken * c.hiddenSize)
        shared = AlignedBuffer(count: 4 * model.maximumRows * c.hiddenSize)
    }

    /// Bytes of the outputs that are combined here.
    static func scratchByteCount(_ model: ExpertsModel) -> Int {
        4 * model.maximumRows * model.configuration.hiddenSize * (model.configuration.expertsPerToken + 1)
    }

    /// Rows one call may have.
    nonisolated var maximumRows: Int { model.maximumRows }

    func forward(_ request: ExpertsRequest, _ body: AlignedBuffer) throws(RPCError) -> AlignedBuffer {
        let inputs = try check(request, body)
        let h = Int(request.hidden)
        let reply = AlignedBuffer(count: 4 * request.replyFloats)
        let out = reply.pointer.assumingMemoryBound(to: Float.self)
        let combines = request.combinedTopK > 0
        let pairOutput = combines ? pairs.pointer.assumingMemoryBound(to: Float.self) : out
        let sharedOutput =
            combines ? shared.pointer.assumingMemoryBound(to: Float.self) : out + Int(request.pairCount) * h
        let started = Stopwatch.now
        model.forward(
            layer: Int(request.layer), rows: inputs.rows, pairRow: inputs.pairRow, pairExpert: inputs.pairExpert,
            pairCount: Int(request.pairCount), sharedRow: inputs.sharedRow, sharedCount: Int(request.sharedCount),
            pairOutput: pairOutput, sharedOutput: sharedOutput)
        if combines {
            ExpertsModel.combine(
                rowCount: Int(request.rowCount), topK: Int(request.combinedTopK), hidden: h, pairOutput: pairOutput,
                weights: inputs.pairWeight, sharedOutput: sharedOutput, into: out)
        }
        kernelTime.add(since: started)
        return reply
    }

    private struct Inputs {
        let rows: UnsafePointer<Float>
        let pairRow: UnsafePointer<Int32>
        let pairExpert: UnsafePointer<Int32>
        let pairWeight: UnsafePointer<Float>
        let sharedRow: UnsafePointer<Int32>
    }

    /// Everything the kernels will trust.
    private func check(_ request: ExpertsRequest, _ body: AlignedBuffer) throws(RPCError) -> Inputs {
        func refuse(_ reason: String) -> RPCError { RPCError(.invalidArgument, "experts call: \(reason)") }
        let c = model.configuration
        let (rowCount, pairCount) = (Int(request.rowCount), Int(request.pairCount))
        guard model.hasLayer(Int(request.layer)) else { throw refuse("layer \(request.layer) has no experts") }
        guard request.hidden == UInt32(c.hiddenSize) else {
            throw refuse("hidden is \(request.hidden), the model has \(c.hiddenSize)")
        }
        guard rowCount <= model.maximumRows, pairCount <= rowCount * c.expertsPerToken else {
            throw refuse("\(rowCount) rows with \(pairCount) pairs, the limit is \(model.maximumRows) rows")
        }
        let combined = Int(request.combinedTopK)
        guard combined == 0 || (combined * rowCount == pairCount && request.sharedCount == request.rowCount) else {
            throw refuse("a combined call needs top-k pairs for every row and every row shared")
        }
        let offsets = request.bodyOffsets
        guard body.count == offsets[5],
            let rows = body.elements(Float.self, at: 0, count: rowCount * c.hiddenSize),
            let pairRow = body.elements(Int32.self, at: offsets[1], count: pairCount),
            let pairExpert = body.elements(Int32.self, at: offsets[2], count: pairCount),
            let pairWeight = body.elements(Float.self, at: offsets[3], count: pairCount),
            let sharedRow = body.elements(Int32.self, at: offsets[4], count: Int(request.sharedCount))
        else { throw refuse("body has \(body.count) bytes, not \(offsets[5])") }
        for pair in 0..<pairCount {
            guard (0..<rowCount).contains(Int(pairRow[pair])), model.experts.contains(Int(pairExpert[pair])) else {
                throw refuse(
                    "pair \(pair) names row \(pairRow[pair]) and expert \(pairExpert[pair]); this shard has "
                        + "experts \(model.experts)")
            }
        }
        for row in 0..<Int(request.sharedCount) where !(0..<rowCount).contains(Int(sharedRow[row])) {
            throw refuse("shared row \(sharedRow[row]) is not among the \(rowCount) rows")
        }
        return Inputs(
            rows: rows, pairRow: pairRow, pairExpert: pairExpert, pairWeight: pairWeight, sharedRow: sharedRow)
    }
}
