import Checkpoint
import Emulation
import EventLoop
import Foundation
import FusedMoE
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
            CommandLineOption(
                "slice", value: "NAME", help: "simulated slice that calls are timed on: v7x-4, -8, -16, -64 or none",
                fallback: "v7x-4"),
            CommandLineOption(
                "ep", value: "N", help: "devices of the slice that share the experts; 0: as many as divide them",
                fallback: "0"),
            CommandLineOption(
                "numerics", value: "KIND",
                help: "plain; or the published kernel's: bf16, faithful (fp8 rows) or lossless, computed on the device",
                fallback: "plain"),
            CommandLineOption(
                "tile", value: "SIZES", help: "bt=…,bf=…,bts=…,btc=…,bse=… of the kernel's numerics; the rest is tuned"),
        ])

    /// "experts".
    public let name = "experts"
    /// Metrics, spans and requests at work.
    public let telemetry = Telemetry()
    /// Which process it is.
    public var instanceID: String { identity.instanceID }
    private let calls: CallTelemetry
    private let compute: any ExpertsComputation
    private let memory: [String: Int64]
    private let identity: PeerIdentity
    private let loop: any Loop
    private var server: RPCServer?

    /// A service that answers and computes on `loop`, so that no call changes threads; it serves once `listen` was
    /// called.
    ///
    /// - times: simulated times of calls, or nil to tell none.
    public convenience init(
        model: ExpertsModel, fingerprint: String, instanceID: String, loop: any Loop, times: SimulatedTimes? = nil
    ) {
        self.init(
            compute: ExpertsCompute(loop: loop, model: model, times: times, kernel: nil), model: model,
            fingerprint: fingerprint, instanceID: instanceID, loop: loop)
    }

    /// A shard of an emulated model.
    public convenience init(
        emulating model: EmulatedModel, shard: ExpertShard, instanceID: String, loop: any Loop,
        times: SimulatedTimes? = nil
    ) {
        let c = model.configuration
        self.init(
            compute: EmulatedExperts(
                hidden: c.hiddenSize, layers: c.denseLayerCount..<c.layerCount, times: times),
            memory: ["weight_bytes": 0, "scratch_bytes": 0, "maximum_rows": Int64(EmulatedExperts.maximumRows)],
            shard: shard, fingerprint: model.fingerprint, instanceID: instanceID, loop: loop)
    }

    private convenience init(
        compute: ExpertsCompute, model: ExpertsModel, fingerprint: String, instanceID: String, loop: any Loop
    ) {
        self.init(
            compute: compute,
            memory: [
                "weight_bytes": Int64(model.weightByteCount),
                "scratch_bytes": Int64(model.scratchByteCount + ExpertsCompute.scratchByteCount(model)),
                "maximum_rows": Int64(model.maximumRows),
            ], shard: model.shard, fingerprint: fingerprint, instanceID: instanceID, loop: loop)
    }

    private init(
        compute: any ExpertsComputation, memory: [String: Int64], shard: ExpertShard, fingerprint: String,
        instanceID: String, loop: any Loop
    ) {
        self.compute = compute
        self.memory = memory
        identity = PeerIdentity(
            role: "experts", instanceID: instanceID, fingerprint: fingerprint,
            layout: "experts shard \(shard.index) of \(shard.count)")
        self.loop = loop
        calls = CallTelemetry(telemetry, service: "experts")
    }

    /// Accepts calls of attention instances that share `secret`; returns the port.
    public func listen(host: String, port: Int, secret: [UInt8]) async throws(LoopError) -> Int {
        let result = await Task(executorPreference: loop) { [self] () -> Result<Int, LoopError> in
            let server = RPCServer(
                loop: loop, identity: identity, secret: secret, roles: ["attention", "client"], handler: self)
            self.server = server
            do throws(LoopError) { return .success(try server.listen(host: host, port: port)) } catch {
                return .failure(error)
            }
        }.value
        return try result.get()
    }

    /// Loads the shard and listens.
    public static func start(_ values: OptionValues, _ loop: UVLoop) async throws -> ExpertsService {
        guard try !ServiceInputs.isEmulated(values) else { return try await startEmulated(values) }
        let checkpoint = try ServiceInputs.checkpoint(values)
        let shards = try values.integer("shards", in: 1...checkpoint.configuration.expertCount)
        let shard = ExpertShard(index: try values.integer("shard", in: 0...shards - 1), count: shards)
        let model = try ExpertsModel(
            checkpoint: checkpoint, shard: shard,
            team: ThreadTeam(threadCount: try values.integer("threads", in: 1...256)),
            maximumRows: try values.integer("maximum-rows", in: 1...65536))
        let hot = UVLoop()
        hot.start()
        let service = ExpertsService(
            compute: try simulatedCompute(values, model, hot), model: model, fingerprint: checkpoint.fingerprint,
            instanceID: ServiceProcess.instanceID("experts"), loop: hot)
        let port = try await service.open(values)
        ServiceProcess.announce(
            "ironling-experts ready on port \(port): experts \(model.experts) of every MoE layer, "
                + "\(model.weightByteCount >> 10) KiB of weights")
        return service
    }

    private static func startEmulated(_ values: OptionValues) async throws -> ExpertsService {
        let model = try EmulatedModel(try values.required("model"))
        let shards = try values.integer("shards", in: 1...model.configuration.expertCount)
        let shard = ExpertShard(index: try values.integer("shard", in: 0...shards - 1), count: shards)
        let slice = try values.required("slice")
        let devices = try values.integer("ep", in: 0...1024)
        var times: SimulatedTimes?
        do {
            times =
                slice == "none"
                ? nil
                : SimulatedTimes(
                    try LayerSimulation(
                        configuration: model.configuration, weights: .float8E4M3, slice: slice,
                        devices: devices == 0 ? nil : devices))
        } catch { throw UsageError("--slice, --ep: \(error)") }
        let hot = UVLoop()
        hot.start()
        let service = ExpertsService(
            emulating: model, shard: shard, instanceID: ServiceProcess.instanceID("experts"), loop: hot, times: times)
        let port = try await service.open(values)
        ServiceProcess.announce(
            "ironling-experts ready on port \(port): emulating shard \(shard.index) of \(shards) of \(model.name)")
        return service
    }

    private func open(_ values: OptionValues) async throws -> Int {
        calls.logger = try ServiceProcess.logger(values, service: "experts")
        try ServiceProcess.logMemory(values, service: "experts", memory)
        return try await listen(
            host: try values.required("host"), port: try values.integer("port", in: 0...65535),
            secret: try ServiceProcess.secret(values))
    }

    /// What `--slice`, `--ep`, `--numerics` and `--tile` ask for.
    private static func simulatedCompute(
        _ values: OptionValues, _ model: ExpertsModel, _ hot: any Loop
    ) throws -> ExpertsCompute {
        let slice = try values.required("slice")
        let numerics = try values.required("numerics")
        let formats: [String: TokenFormat] = [
            "plain": .bfloat16, "bf16": .bfloat16, "faithful": .float8(.faithful), "lossless": .float8(.lossless),
        ]
        guard let format = formats[numerics] else {
            throw UsageError("--numerics takes plain, bf16, faithful or lossless, not \"\(numerics)\"")
        }
        guard slice != "none" else {
            guard numerics == "plain" else { throw UsageError("--numerics \(numerics) needs a --slice") }
            return ExpertsCompute(loop: hot, model: model, times: nil, kernel: nil)
        }
        let devices = try values.integer("ep", in: 0...1024)
        do {
            let simulation = try LayerSimulation(
                configuration: model.configuration, weights: model.weightType, slice: slice,
                devices: devices == 0 ? nil : devices, tokens: format)
            let overrides = try values.text("tile").map { try TileOverrides(parsing: $0) } ?? TileOverrides()
            let kernel = numerics == "plain" ? nil : try KernelExecution(simulation, overrides: overrides, model: model)
            let times = SimulatedTimes(simulation)
            if kernel == nil { times.prepare(rows: model.maximumRows) }
            return ExpertsCompute(loop: hot, model: model, times: times, kernel: kernel)
        } catch {
            throw UsageError("--slice, --ep, --numerics, --tile: \(error)")
        }
    }

    /// Answers a call.
    public func handle(_ call: ServerCall) async throws(RPCError) -> RPCPayload {
        switch call.method {
        case .expertsForward:
            var timing = calls.begin(call.trace)
            let request = try ServiceInputs.decoded { () throws(WireError) in
                try ExpertsRequest(decoding: call.metadata)
            }
            timing.read()
            let (reply, time) = try await compute.forward(request, call.body)
            timing.computed()
            let payload = RPCPayload(metadata: ExpertsReply(simulatedPicoseconds: time).encoded(), body: reply)
            calls.end(timing, layer: Int(request.layer), rows: Int(request.rowCount), simulatedPicoseconds: time)
            return payload
        case .status:
            return RPCPayload(metadata: StatusReply(counters: await counters()).encoded())
        default: throw RPCError(.unknownMethod, "experts do not answer method \(call.method.rawValue)")
        }
    }

    /// Those of the server, the kernels' time, the limit on rows, and what was simulated.
    public func counters() async -> [String: Int64] {
        await Task(executorPreference: loop) { [self] in await ownCounters() }.value
    }

    private func ownCounters() async -> [String: Int64] {
        let counters = memory.merging(server?.counters ?? [:]) { _, new in new }
        return counters.merging(await compute.counters()) { $1 }
    }

    /// Closes every connection at once. On the loop.
    public func close() { server?.close() }

    /// Stops taking calls and lets those that run finish.
    public func drain() async {
        await Task(executorPreference: loop) { [self] in await server?.drain(withinMicroseconds: 10_000_000) }.value
    }
}
