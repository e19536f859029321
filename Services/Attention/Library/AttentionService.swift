import Checkpoint
import EventLoop
import Foundation
import HybridModel
import Numerics
import RPC
import Scheduling
import ServiceSupport
import StatePools
import WireProtocol

/// The attention service: holds what requests own and drives the layer loop. Answers `generateTokens` and `status`.
public final class AttentionService: RPCHandler, RunningService, @unchecked Sendable {
    /// Its command line.
    public static let options = CommandLineOptions(
        program: "ironling-attention",
        summary: "Runs both kinds of attention, owns KV pages and recurrent states, and drives experts and sampler.",
        options: ServiceProcess.commonOptions + [
            CommandLineOption("port", value: "PORT", help: "TCP port to listen on", fallback: "7001"),
            CommandLineOption("experts", value: "HOST:PORT,…", help: "experts processes in shard order"),
            CommandLineOption("sampler", value: "HOST:PORT", help: "sampler process"),
            CommandLineOption("slots", value: "N", help: "requests that run at once", fallback: "32"),
            CommandLineOption("kv-tokens", value: "N", help: "tokens of KV memory", fallback: "65536"),
            CommandLineOption(
                "prefill-chunk", value: "N", help: "prompt tokens per step, a multiple of 64", fallback: "512"),
            CommandLineOption("queue", value: "N", help: "requests that may wait for memory", fallback: "1024"),
        ])

    private let engine: AttentionEngine
    private var server: RPCServer?

    private init(engine: AttentionEngine) { self.engine = engine }

    /// Loads the weights, connects to experts and sampler, and listens.
    public static func start(_ values: OptionValues, _ loop: UVLoop) async throws -> AttentionService {
        let checkpoint = try ServiceInputs.checkpoint(values)
        let c = checkpoint.configuration
        let chunk = try values.integer("prefill-chunk", in: 64...16384)
        guard chunk % 64 == 0 else { throw UsageError("--prefill-chunk must be a multiple of 64, not \(chunk)") }
        let slots = try values.integer("slots", in: 1...4096)
        let pages = try (values.integer("kv-tokens", in: 64...(1 << 26)) + 63) / 64
        let limits = SchedulerLimits(
            rowsPerStep: chunk + slots, prefillChunk: chunk, running: slots,
            waiting: try values.integer("queue", in: 0...65536))
        let team = ThreadTeam(threadCount: try values.integer("threads", in: 1...256))
        let model = try AttentionModel(checkpoint: checkpoint, team: team, maximumRows: limits.rowsPerStep)
        let state = try StateMemory(configuration: c, slotCount: slots, pageCount: pages)
        let hot = UVLoop()
        hot.start()
        let identity = PeerIdentity(
            role: "attention", instanceID: "attention-\(getpid())", fingerprint: checkpoint.fingerprint)
        let secret = try ServiceProcess.secret(values)
        let addresses = try values.addresses("experts")
        let clients = addresses.enumerated().map { index, address in
            RPCClient(
                loop: hot, host: address.host, port: address.port, identity: identity, role: "experts",
                fingerprint: checkpoint.fingerprint, layout: "experts shard \(index) of \(addresses.count)",
                secret: secret)
        }
        let samplerAddress = try values.addresses("sampler")[0]
        let sampler = RPCClient(
            loop: hot, host: samplerAddress.host, port: samplerAddress.port, identity: identity, role: "sampler",
            fingerprint: checkpoint.fingerprint, secret: secret)
        let engine = AttentionEngine(
            loop: hot, model: model, state: state,
            experts: ExpertsDispatcher(
                loop: hot, clients: clients, configuration: c, maximumRows: limits.rowsPerStep,
                timeoutMicroseconds: 10_000_000),
            sampler: sampler,
            scheduler: BatchScheduler(limits: limits, pools: StatePools(slotCount: slots, pageCount: pages)))
        try await connect(clients + [sampler], on: hot)
        let service = AttentionService(engine: engine)
        let server = RPCServer(
            loop: loop, identity: identity, secret: secret, roles: ["gateway", "client"], handler: service)
        service.server = server
        let port = try server.listen(
            host: try values.required("host"), port: try values.integer("port", in: 0...65535))
        ServiceProcess.announce(
            "ironling-attention ready on port \(port): \(model.weightByteCount >> 10) KiB of weights, "
                + "\(state.byteCount >> 10) KiB of state memory (\(slots) requests, \(pages * 64) tokens)")
        return service
    }

    /// Waits, on the loop the clients live on, until all are connected.
    private static func connect(_ clients: [RPCClient], on loop: UVLoop) async throws {
        try await Task(executorPreference: loop) {
            for client in clients { client.start() }
            for client in clients { try await client.waitReady(timeoutMicroseconds: 60_000_000) }
        }.value
    }

    /// Answers a call.
    public func handle(_ call: ServerCall) async throws(RPCError) -> RPCPayload {
        switch call.method {
        case .generateTokens: return try await generate(call)
        case .status:
            var counters = await engine.counters()
            counters["connections"] = Int64(server?.connectionCount ?? 0)
            counters["calls"] = Int64(server?.callCount ?? 0)
            return RPCPayload(metadata: StatusReply(counters: counters).encoded())
        default: throw RPCError(.unknownMethod, "attention does not answer method \(call.method.rawValue)")
        }
    }

    private func generate(_ call: ServerCall) async throws(RPCError) -> RPCPayload {
        let message = try ServiceInputs.decoded { () throws(WireError) in try TokensRequest(decoding: call.metadata) }
        let (events, continuation) = AsyncStream.makeStream(of: TokenEvent.self)
        let id = try await engine.submit(message, events: continuation)
        do throws(RPCError) {
            for await event in events {
                switch event {
                case .token(let item): try await call.send(RPCPayload(metadata: item.encoded()))
                case .finished(let end): return RPCPayload(metadata: end.encoded())
                case .failed(let error): throw error
                }
            }
            throw RPCError(.cancelled, "the request was cancelled")
        } catch {
            await engine.cancel(id)
            throw error
        }
    }

    /// Stops taking requests and lets those that run finish.
    public func drain() async { await server?.drain(withinMicroseconds: 30_000_000) }
}
