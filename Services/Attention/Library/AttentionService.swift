import Checkpoint
import EventLoop
import Foundation
import HybridModel
import Numerics
import Observability
import RPC
import Scheduling
import ServiceSupport
import StatePools
import WireProtocol

/// Which part of a request an attention instance takes.
public enum InstanceRole: String, Sendable {
    /// Prompts, whose state it hands out.
    case prefill
    /// Generation, from state it receives.
    case decode
    /// Both, also for one request.
    case both

    /// The same for the scheduler.
    public var part: RequestRole {
        switch self {
        case .prefill: .prefillOnly
        case .decode: .decodeOnly
        case .both: .both
        }
    }
}

/// The attention service: holds what requests own and drives the layer loop. Answers `generateTokens`, `prefill` and
/// `status`.
public final class AttentionService: RPCHandler, RunningService, @unchecked Sendable {
    /// Its command line.
    public static let options = CommandLineOptions(
        program: "ironling-attention",
        summary: "Runs both kinds of attention, owns KV pages and recurrent states, and drives experts and sampler.",
        options: ServiceProcess.commonOptions + [
            CommandLineOption("port", value: "PORT", help: "TCP port to listen on", fallback: "7001"),
            CommandLineOption(
                "experts", value: "HOST:PORT,…",
                help: "experts processes in shard order; a name stands for all replicas it resolves to"),
            CommandLineOption(
                "sampler", value: "HOST:PORT", help: "sampler process, or a name that resolves to several"),
            CommandLineOption(
                "role", value: "ROLE", help: "prefill, decode or both: the part of a request it takes",
                fallback: "both"),
            CommandLineOption("dp-rank", value: "N", help: "data-parallel rank, for pools and metrics", fallback: "0"),
            CommandLineOption(
                "lease", value: "SECONDS", help: "silence after which a prefill instance is given up", fallback: "5"),
            CommandLineOption("slots", value: "N", help: "requests that run at once", fallback: "32"),
            CommandLineOption("kv-tokens", value: "N", help: "tokens of KV memory", fallback: "65536"),
        ] + StateBudget.options + [
            CommandLineOption(
                "prefill-chunk", value: "N", help: "prompt tokens per step, a multiple of 64", fallback: "512"),
            CommandLineOption("queue", value: "N", help: "requests that may wait for memory", fallback: "1024"),
        ])

    /// "attention".
    public let name = "attention"
    /// Metrics, spans and requests at work.
    public let telemetry: Telemetry
    /// Which process it is.
    public var instanceID: String { identity.instanceID }
    /// Where requests are logged; nil for nowhere.
    private var logger: Logger?
    private let engine: AttentionEngine
    private let handOff: HandOff
    private let role: InstanceRole
    private let memory: [String: Int64]
    private let peers: [ReplicaSet]
    private let identity: PeerIdentity
    private let secret: [UInt8]
    private let limits: SchedulerLimits
    private let loop: any Loop
    private let hot: any Loop
    private var server: RPCServer?

    /// A service that answers on `loop` and computes on `hot`, calling experts (in shard order) and a sampler that share
    /// `secret`. Slot 0 and page 0 of `state` are padding. It serves once `connect` and `listen`
    /// were called.
    public init(
        model: AttentionModel, state: StateMemory, limits: SchedulerLimits, identity: PeerIdentity,
        experts: [HostPort], sampler: HostPort, secret: [UInt8], role: InstanceRole = .both, dpRank: Int = 0,
        leaseMicroseconds: UInt64 = 5_000_000, loop: any Loop, hot: any Loop,
        onRecord: @escaping @Sendable (TransferRecord) -> Void = { _ in },
        onChange: @escaping @Sendable (String, Discovery.Change) -> Void = { _, _ in }
    ) {
        let link = PeerLink(loop: hot, identity: identity, secret: secret, onChange: onChange)
        let shards = experts.enumerated().map { index, address in
            link.replicas(
                "experts process \(index)", address, role: "experts",
                layout: "experts shard \(index) of \(experts.count)", rows: limits.rowsPerStep)
        }
        let samplers = link.replicas("sampler", sampler, role: "sampler", rows: limits.running)
        telemetry = Telemetry()
        engine = AttentionEngine(
            loop: hot, model: model, state: state,
            experts: ExpertsDispatcher(
                loop: hot, shards: shards, configuration: model.configuration, maximumRows: limits.rowsPerStep,
                timeoutMicroseconds: 10_000_000),
            sampler: samplers,
            scheduler: BatchScheduler(
                limits: limits,
                pools: StatePools(
                    slotCount: state.slotCount - 1, pageCount: state.pageCount - 1, dpRank: dpRank)),
            telemetry: telemetry)
        handOff = HandOff(
            engine: engine,
            map: StateMap(memory: state, places: model.layerPlaces, fingerprint: identity.fingerprint),
            identity: identity, secret: secret, leaseMicroseconds: leaseMicroseconds, loop: loop, onRecord: onRecord)
        self.role = role
        memory = [
            "weight_bytes": Int64(model.weightByteCount), "state_bytes": Int64(state.byteCount),
            "scratch_bytes": Int64(
                model.scratchByteCount
                    + ExpertsDispatcher.scratchByteCount(model.configuration, limits.rowsPerStep)),
            "rows_per_step": Int64(limits.rowsPerStep),
        ]
        peers = shards + [samplers]
        self.identity = identity
        self.secret = secret
        self.limits = limits
        self.loop = loop
        self.hot = hot
    }

    /// Loads the weights, connects to experts and sampler, and listens.
    public static func start(_ values: OptionValues, _ loop: UVLoop) async throws -> AttentionService {
        let checkpoint = try ServiceInputs.checkpoint(values)
        let chunk = try values.integer("prefill-chunk", in: 64...16384)
        guard chunk % 64 == 0 else { throw UsageError("--prefill-chunk must be a multiple of 64, not \(chunk)") }
        let capacity = try StateBudget.capacity(values, of: checkpoint.configuration)
        let running = min(try values.integer("slots", in: 1...4096), capacity.requests)
        var limits = SchedulerLimits(
            rowsPerStep: chunk + running, prefillChunk: chunk, running: running,
            waiting: try values.integer("queue", in: 0...65536))
        limits.replayRows = 64
        let team = ThreadTeam(threadCount: try values.integer("threads", in: 1...256))
        let model = try AttentionModel(checkpoint: checkpoint, team: team, maximumRows: limits.rowsPerStep)
        let state = try StateMemory(
            configuration: checkpoint.configuration, slotCount: capacity.requests + 1,
            pageCount: capacity.tokens / StateMemory.pageTokens + 1)
        let hot = UVLoop()
        hot.start()
        let logger = try ServiceProcess.logger(values, service: "attention")
        let service = AttentionService(
            model: model, state: state, limits: limits,
            identity: PeerIdentity(
                role: "attention", instanceID: ServiceProcess.instanceID("attention"),
                generation: UInt64(Date().timeIntervalSince1970 * 1_000_000), fingerprint: checkpoint.fingerprint),
            experts: try values.addresses("experts"), sampler: try values.addresses("sampler")[0],
            secret: try ServiceProcess.secret(values), role: try role(values),
            dpRank: try values.integer("dp-rank", in: 0...65535),
            leaseMicroseconds: UInt64(try values.integer("lease", in: 1...600)) * 1_000_000, loop: loop, hot: hot,
            onRecord: { logger.info("transfer", ["record": LogValue(describing: $0)]) },
            onChange: { logger.info("replicas", ["of": .string($0), "change": LogValue(describing: $1)]) })
        service.logger = logger
        try ServiceProcess.logMemory(values, service: "attention", service.memory)
        try await service.connect(timeoutMicroseconds: 60_000_000)
        let port = try service.listen(
            host: try values.required("host"), port: try values.integer("port", in: 0...65535))
        ServiceProcess.announce(
            "ironling-attention ready on port \(port): \(model.weightByteCount >> 10) KiB of weights, "
                + "state memory for \(capacity)")
        return service
    }

    private static func role(_ values: OptionValues) throws(UsageError) -> InstanceRole {
        let name = try values.required("role")
        guard let role = InstanceRole(rawValue: name) else {
            throw UsageError("--role is prefill, decode or both, not \"\(name)\"")
        }
        return role
    }

    /// Connects to experts and sampler and waits, on the loop these connections live on, until one replica of each is
    /// there.
    public func connect(timeoutMicroseconds: UInt64) async throws(RPCError) {
        let peers = self.peers
        let result = await Task(executorPreference: hot) { () -> Result<Void, RPCError> in
            do throws(RPCError) {
                for peer in peers { peer.start() }
                for peer in peers { try await peer.waitReady(timeoutMicroseconds: timeoutMicroseconds) }
                return .success(())
            } catch {
                return .failure(error)
            }
        }.value
        try result.get()
    }

    /// Accepts calls of gateways and clients that share the secret; returns the port. On the loop.
    public func listen(host: String, port: Int) throws(LoopError) -> Int {
        let server = RPCServer(
            loop: loop, identity: identity, secret: secret, roles: ["gateway", "client", "attention"],
            handler: self)
        self.server = server
        return try server.listen(host: host, port: port)
    }

    /// Answers a call.
    public func handle(_ call: ServerCall) async throws(RPCError) -> RPCPayload {
        switch call.method {
        case .generateTokens: return try await generate(call)
        case .prefill:
            guard role != .decode else { throw RPCError(.notAccepted, "a decode instance does not take prefill calls") }
            let number = telemetry.requests.begin(.queued, trace: call.trace)
            defer { over(number, "handed off") }
            return try await handOff.send(call, number)
        case .status:
            return RPCPayload(metadata: StatusReply(counters: await counters()).encoded())
        default: throw RPCError(.unknownMethod, "attention does not answer method \(call.method.rawValue)")
        }
    }

    /// Those of the engine, of the hand-offs and of the server.
    public func counters() async -> [String: Int64] {
        let own = memory.merging(server?.counters ?? [:]) { _, new in new }
            .merging(handOff.counters) { own, _ in own }
        return await engine.counters().merging(own) { _, new in new }
    }

    private func generate(_ call: ServerCall) async throws(RPCError) -> RPCPayload {
        let message = try ServiceInputs.decoded { () throws(WireError) in try TokensRequest(decoding: call.metadata) }
        switch role {
        case .prefill: throw RPCError(.notAccepted, "a prefill instance does not generate")
        case .decode where message.prefill.isEmpty:
            throw RPCError(.notAccepted, "a decode instance does not compute prompts: name a prefill instance")
        case .decode, .both: break
        }
        let (events, continuation) = AsyncStream.makeStream(of: EngineEvent.self)
        let number = telemetry.requests.begin(.queued, trace: call.trace, promptTokens: message.prompt.count)
        var end = "failed"
        defer { over(number, end) }
        let id = try await engine.submit(
            EngineRequest(message, trace: call.trace, number: number), events: continuation)
        do throws(RPCError) {
            let result = try await stream(events, id, message, call)
            end = "\(result.reason)"
            return RPCPayload(metadata: result.encoded())
        } catch {
            end = "\(error.code)"
            await engine.forget(id)
            throw error
        }
    }

    /// A request is over: its spans are recorded, and its figures logged.
    private func over(_ number: UInt64, _ end: String) {
        guard let request = telemetry.requests.end(number), let logger, logger.minimumLevel <= .info else { return }
        func milliseconds(_ phase: SpanName) -> LogValue { .double(Double(request.time(in: phase) / 1000) / 1000) }
        logger.info(
            "request",
            [
                "trace": .string(request.trace.isNone ? "none" : request.trace.id), "end": .string(end),
                "prompt_tokens": LogValue(request.promptTokens), "tokens": LogValue(request.tokens),
                "queued_ms": milliseconds(.queued), "receiving_ms": milliseconds(.receiving),
                "prefill_ms": milliseconds(.prefill), "decode_ms": milliseconds(.decode),
            ])
    }

    private func stream(
        _ events: AsyncStream<EngineEvent>, _ id: UInt64, _ message: TokensRequest, _ call: ServerCall
    ) async throws(RPCError) -> GenerateEnd {
        for await event in events {
            switch event {
            case .admitted(let reservation, let transfer):
                guard let transfer, let request = await engine.request(id) else { continue }
                try await handOff.receive(
                    id, request, from: message.prefill, reservation, transfer,
                    timeoutMicroseconds: call.deadlineMicroseconds)
            case .token(let item): try await call.send(RPCPayload(metadata: item.encoded()))
            case .finished(let end): return end
            case .failed(let error): throw error
            case .segment, .promptComplete, .heartbeat: break
            }
        }
        throw RPCError(.cancelled, "the request was cancelled")
    }

    /// Closes every connection at once. On the loop.
    public func close() {
        server?.close()
        handOff.close()
        let peers = self.peers
        hot.execute { for peer in peers { peer.close() } }
    }

    /// Stops taking requests and lets those that run finish.
    public func drain() async { await server?.drain(withinMicroseconds: 30_000_000) }
}
