import EventLoop
import HybridModel
import Observability
import RPC
import Scheduling
import ServiceSupport
import Serving
import StatePools
import WireProtocol

/// The attention service: holds what requests own and drives the layer loop. Answers `generateTokens`, `prefill` and
/// `status`.
public final class AttentionService: RPCHandler, RunningService, Sendable {
    /// "attention".
    public let name = "attention"
    /// Metrics, spans and requests at work.
    public let telemetry: Telemetry
    /// Which process it is.
    public var instanceID: String { server.identity.instanceID }
    /// Where requests are logged; nil for nowhere.
    private let logger: Logger?
    private let engine: AttentionEngine
    private let handOff: HandOff
    private let role: Part
    let memory: [String: Int64]
    private let chain: ServiceChain
    private let server: CallServer
    private let secret: [UInt8]
    private let hot: any Loop

    /// What stands around what a service computes with, however it does.
    struct Parts {
        let group: Ranks
        let map: StateMap
        /// Bytes held for good, and rows per step, by name.
        let memory: [String: Int64]
        /// The services that are called.
        let chain: ServiceChain
    }

    /// A service that answers on `loop` and computes on `hot`, calling experts (in shard order) and a sampler that share
    /// `secret`. Slot 0 and page 0 of `state` are padding. It serves once `connect` and `listen`
    /// were called.
    public convenience init(
        model: sending AttentionModel, state: StateMemory, limits: SchedulerLimits, identity: PeerIdentity,
        experts: [HostPort], sampler: HostPort, secret: [UInt8], role: Part = .both, dpRank: Int = 0,
        leaseMicroseconds: UInt64 = 5_000_000, loop: any Loop, hot: any Loop,
        logger: Logger? = nil, onRecord: @escaping @Sendable (TransferRecord) -> Void = { _ in },
        onChange: @escaping @Sendable (String, Discovery.Change) -> Void = { _, _ in }
    ) {
        let link = PeerLink(loop: hot, identity: identity, secret: secret, onChange: onChange)
        let shards = link.shards(experts, rows: limits.rowsPerStep)
        let samplers = link.replicas("sampler", sampler, role: "sampler", rows: limits.running)
        let scratch = ExpertsDispatcher.scratchByteCount(model.configuration, limits.rowsPerStep)
        let parts = Parts(
            group: Ranks(
                limits: limits, slotCount: state.slotCount - 1 - limits.snapshots, pageCount: state.pageCount - 1,
                firstRank: dpRank),
            map: StateMap(memory: state, places: model.layerPlaces, fingerprint: identity.fingerprint),
            memory: [
                "weight_bytes": Int64(model.weightByteCount), "state_bytes": Int64(state.byteCount),
                "scratch_bytes": Int64(model.scratchByteCount + scratch),
                "rows_per_step": Int64(limits.rowsPerStep),
            ], chain: ServiceChain(experts: shards, sampler: samplers))
        let computation = ModelComputation(
            model: model, state: state,
            experts: ExpertsDispatcher(
                loop: hot, shards: shards, configuration: model.configuration, maximumRows: limits.rowsPerStep,
                timeoutMicroseconds: 10_000_000),
            sampler: samplers)
        self.init(
            parts, computation, identity: identity, secret: secret, role: role, leaseMicroseconds: leaseMicroseconds,
            loop: loop, hot: hot, logger: logger, onRecord: onRecord)
    }

    init(
        _ parts: Parts, _ computation: sending any StepComputation, identity: PeerIdentity, secret: [UInt8], role: Part,
        leaseMicroseconds: UInt64, loop: any Loop, hot: any Loop, logger: Logger?,
        onRecord: @escaping @Sendable (TransferRecord) -> Void
    ) {
        telemetry = Telemetry()
        engine = AttentionEngine(
            loop: hot, computation: computation, chain: parts.chain, ranks: parts.group,
            telemetry: telemetry)
        handOff = HandOff(
            engine: engine, map: parts.map, identity: identity, secret: secret, leaseMicroseconds: leaseMicroseconds,
            loop: loop, onRecord: onRecord)
        self.logger = logger
        self.role = role
        memory = parts.memory
        chain = parts.chain
        server = CallServer(
            identity, subject: "attention does", roles: ["gateway", "client", "attention"], loop: loop)
        self.secret = secret
        self.hot = hot
    }

    /// Connects to experts and sampler and waits, on the loop these connections live on, until one replica of each is
    /// there.
    ///
    /// - Throws: `RPCError` of the service that is not there in time.
    public func connect(timeoutMicroseconds: UInt64) async throws(RPCError) {
        let peers = chain.all
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

    /// Whom it waits for until it is connected.
    func waiting() async -> [PeerWait.Group] {
        let peers = chain.all
        return await Task(executorPreference: hot) { peers.map { PeerWait.Group($0) } }.value
    }

    /// Accepts calls of gateways and clients that share the secret; returns the port. On the loop.
    ///
    /// - Throws: `LoopError` when the address cannot be listened on.
    public func listen(host: String, port: Int) throws(LoopError) -> Int {
        try server.listen(host: host, port: port, secret: secret, for: self)
    }

    /// Answers a call.
    ///
    /// - Throws: `RPCError` that the caller is answered with.
    public func handle(_ call: ServerCall) async throws(RPCError) -> RPCPayload {
        switch call.method {
        case .generateTokens: return try await generate(call)
        case .prefill:
            guard role != .decode else { throw RPCError(.notAccepted, "a decode instance does not take prefill calls") }
            try await engine.waitForChain()
            let number = telemetry.requests.begin(.queued, trace: call.trace)
            defer { over(number, "handed off") }
            return try await handOff.send(call, number)
        case .flush:
            await engine.flush()
            return RPCPayload()
        default:
            return try await server.answer(call) {
                StatusReply(
                    counters: await counters(), missing: await engine.missing(), capacity: await engine.capacity())
            }
        }
    }

    /// Those of the engine, of the hand-offs and of the server.
    public func counters() async -> [String: Int64] {
        let own = memory.merging(server.counters) { _, new in new }
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
        try await engine.waitForChain()
        let (events, continuation) = AsyncStream.makeStream(of: EngineEvent.self)
        let number = telemetry.requests.begin(.queued, trace: call.trace, promptTokens: message.request.promptCount)
        var end = "failed"
        defer { over(number, end) }
        var request = message.request
        request.part = message.prefill.isEmpty ? .both : .decode
        let id = try await engine.submit(request, trace: call.trace, number: number, events: continuation)
        let signs = WorkSigns(call, loop: server.loop) { [engine, handOff] in
            await engine.work(of: id).map { $0 &+ handOff.receivedItems }
        }
        if message.wantsSigns { signs.begin() }
        defer { signs.end() }
        do throws(RPCError) {
            let result = try await stream(events, id, message, call, signs)
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
        _ events: AsyncStream<EngineEvent>, _ id: UInt64, _ message: TokensRequest, _ call: ServerCall,
        _ signs: WorkSigns
    ) async throws(RPCError) -> End {
        for await event in events {
            switch event {
            case .admitted(let reservation, let transfer):
                guard let transfer else { continue }
                guard let request = await engine.request(id) else {
                    await engine.endTransfer(transfer)
                    continue
                }
                try await handOff.receive(
                    request, trace: call.trace, from: message.prefill, reservation, transfer,
                    timeoutMicroseconds: call.deadlineMicroseconds)
            case .token(let token, let cached):
                signs.token()
                try await call.send(RPCPayload(metadata: TokensPart.token(token, cached: cached).encoded()))
            case .finished(let end): return end
            case .failed(let error): throw error
            case .segment, .promptComplete, .heartbeat: break
            }
        }
        throw RPCError(.cancelled, "the request was cancelled")
    }

    /// Closes every connection, as soon as its loops get to it. From any thread.
    public func close() {
        server.loop.execute { [self] in
            server.close()
            handOff.close()
        }
        let peers = chain.all
        hot.execute { for peer in peers { peer.close() } }
    }

    /// Stops taking requests and lets those that run finish.
    public func drain() async { await server.drain(withinMicroseconds: 30_000_000) }
}
