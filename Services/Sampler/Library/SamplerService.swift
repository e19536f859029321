import Checkpoint
import EventLoop
import Foundation
import HybridModel
import Numerics
import RPC
import Sampling
import ServiceSupport
import WireProtocol

/// The sampler service: final norm, output head and sampling. Answers `sample` and `status`; logits never leave it.
public final class SamplerService: RPCHandler, RunningService, @unchecked Sendable {
    /// Its command line.
    public static let options = CommandLineOptions(
        program: "ironling-sampler",
        summary: "Holds the final norm and the output head: hidden rows in, tokens and logprobs out.",
        options: ServiceProcess.commonOptions + [
            CommandLineOption("port", value: "PORT", help: "TCP port to listen on", fallback: "7003"),
            CommandLineOption("maximum-rows", value: "N", help: "rows one call may have", fallback: "256"),
        ])

    private let compute: SamplerCompute
    private var server: RPCServer?

    private init(compute: SamplerCompute) { self.compute = compute }

    /// Loads the head and listens.
    public static func start(_ values: OptionValues, _ loop: UVLoop) async throws -> SamplerService {
        let checkpoint = try ServiceInputs.checkpoint(values)
        let model = try HeadModel(
            checkpoint: checkpoint, team: ThreadTeam(threadCount: try values.integer("threads", in: 1...256)),
            maximumRows: try values.integer("maximum-rows", in: 1...4096))
        let hot = UVLoop()
        hot.start()
        let service = SamplerService(compute: SamplerCompute(loop: hot, model: model))
        let identity = PeerIdentity(
            role: "sampler", instanceID: "sampler-\(getpid())", fingerprint: checkpoint.fingerprint)
        let server = RPCServer(
            loop: loop, identity: identity, secret: try ServiceProcess.secret(values), roles: ["attention", "client"],
            handler: service)
        service.server = server
        let port = try server.listen(
            host: try values.required("host"), port: try values.integer("port", in: 0...65535))
        ServiceProcess.announce(
            "ironling-sampler ready on port \(port): \(model.weightByteCount >> 10) KiB of weights")
        return service
    }

    /// Answers a call.
    public func handle(_ call: ServerCall) async throws(RPCError) -> RPCPayload {
        switch call.method {
        case .sample:
            let request = try ServiceInputs.decoded { () throws(WireError) in
                try SampleRequest(decoding: call.metadata)
            }
            guard let body = call.body else { throw RPCError(.invalidArgument, "sample call has no body") }
            return RPCPayload(metadata: try await compute.sample(request, body).encoded())
        case .status:
            let counters = [
                "connections": Int64(server?.connectionCount ?? 0), "calls": Int64(server?.callCount ?? 0),
            ]
            return RPCPayload(metadata: StatusReply(counters: counters).encoded())
        default: throw RPCError(.unknownMethod, "the sampler does not answer method \(call.method.rawValue)")
        }
    }

    /// Stops taking calls and lets those that run finish.
    public func drain() async { await server?.drain(withinMicroseconds: 10_000_000) }
}

/// Runs the head and the sampling on a loop of its own, one call at a time.
actor SamplerCompute {
    private nonisolated let loop: UVLoop
    private let model: HeadModel
    private let logits: AlignedBuffer
    private var sampler = TokenSampler()

    nonisolated var unownedExecutor: UnownedSerialExecutor { loop.asUnownedSerialExecutor() }

    init(loop: UVLoop, model: HeadModel) {
        self.loop = loop
        self.model = model
        logits = AlignedBuffer(count: 4 * model.maximumRows * model.configuration.vocabularySize)
    }

    func sample(_ request: SampleRequest, _ body: AlignedBuffer) throws(RPCError) -> SampleReply {
        let c = model.configuration
        guard request.hidden == UInt32(c.hiddenSize), request.rows.count <= model.maximumRows else {
            throw RPCError(
                .invalidArgument,
                "sample call has \(request.rows.count) rows of \(request.hidden); the limits are \(model.maximumRows) "
                    + "rows of \(c.hiddenSize)")
        }
        guard body.count == 4 * request.rows.count * c.hiddenSize,
            let rows = body.elements(Float.self, at: 0, count: request.rows.count * c.hiddenSize)
        else { throw RPCError(.invalidArgument, "sample call has a body of \(body.count) bytes") }
        let out = logits.pointer.assumingMemoryBound(to: Float.self)
        model.logits(rows, rowCount: request.rows.count, into: out)
        var items: [TokensItem] = []
        for (index, row) in request.rows.enumerated() {
            let buffer = UnsafeMutableBufferPointer(start: out + index * c.vocabularySize, count: c.vocabularySize)
            items.append(try sample(row, buffer))
        }
        return SampleReply(items: items)
    }

    private func sample(_ row: SampleRow, _ logits: UnsafeMutableBufferPointer<Float>) throws(RPCError) -> TokensItem {
        var parameters = SamplingParameters()
        parameters.temperature = row.sampling.temperature
        parameters.topK = Int(row.sampling.topK)
        parameters.topP = row.sampling.topP
        parameters.minP = row.sampling.minP
        parameters.repetitionPenalty = row.sampling.repetitionPenalty
        parameters.presencePenalty = row.sampling.presencePenalty
        parameters.frequencyPenalty = row.sampling.frequencyPenalty
        parameters.seed = row.sampling.seed
        parameters.position = row.position
        do throws(SamplingError) {
            let token = try sampler.sample(
                logits, parameters, topLogprobs: Int(row.topLogprobs), history: row.history,
                promptCount: Int(row.promptCount))
            return TokensItem(
                token: TokenLogprob(id: token.id, logprob: token.logprob),
                top: token.top.map { TokenLogprob(id: $0.id, logprob: $0.logprob) })
        } catch {
            throw RPCError(.internal, error.description)
        }
    }
}
