import Checkpoint
import Emulation
import EventLoop
import Foundation
import HybridModel
import Numerics
import Observability
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

    /// "sampler".
    public let name = "sampler"
    /// Metrics, spans and requests at work.
    public let telemetry = Telemetry()
    /// Which process it is.
    public var instanceID: String { identity.instanceID }
    private let calls: CallTelemetry
    private let compute: any SamplerComputation
    private let memory: [String: Int64]
    private let identity: PeerIdentity
    private let loop: any Loop
    private var server: RPCServer?

    /// A service that answers and computes on `loop`, so that no call changes threads; it serves once `listen` was
    /// called.
    public init(model: HeadModel, fingerprint: String, instanceID: String, loop: any Loop) {
        compute = SamplerCompute(loop: loop, model: model)
        memory = [
            "weight_bytes": Int64(model.weightByteCount),
            "scratch_bytes": Int64(model.scratchByteCount + SamplerCompute.scratchByteCount(model)),
            "maximum_rows": Int64(model.maximumRows),
        ]
        identity = PeerIdentity(role: "sampler", instanceID: instanceID, fingerprint: fingerprint)
        self.loop = loop
        calls = CallTelemetry(telemetry, service: "sampler")
    }

    /// The sampler of an emulated model.
    public init(emulating model: EmulatedModel, instanceID: String, loop: any Loop) {
        compute = EmulatedSampler(hidden: model.configuration.hiddenSize)
        memory = [
            "weight_bytes": 0, "scratch_bytes": 0, "maximum_rows": Int64(SampleRequest.maximumRows),
        ]
        identity = PeerIdentity(role: "sampler", instanceID: instanceID, fingerprint: model.fingerprint)
        self.loop = loop
        calls = CallTelemetry(telemetry, service: "sampler")
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

    /// Loads the head and listens.
    public static func start(_ values: OptionValues, _ loop: UVLoop) async throws -> SamplerService {
        let hot = UVLoop()
        hot.start()
        let (service, sentence) = try make(values, hot)
        service.calls.logger = try ServiceProcess.logger(values, service: "sampler")
        try ServiceProcess.logMemory(values, service: "sampler", service.memory)
        let port = try await service.listen(
            host: try values.required("host"), port: try values.integer("port", in: 0...65535),
            secret: try ServiceProcess.secret(values))
        ServiceProcess.announce("ironling-sampler ready on port \(port): \(sentence)")
        return service
    }

    private static func make(_ values: OptionValues, _ hot: any Loop) throws -> (SamplerService, String) {
        guard try !ServiceInputs.isEmulated(values) else {
            let model = try EmulatedModel(try values.required("model"))
            return (
                SamplerService(
                    emulating: model, instanceID: ServiceProcess.instanceID("sampler"), loop: hot),
                "emulating \(model.name)"
            )
        }
        let checkpoint = try ServiceInputs.checkpoint(values)
        let model = try HeadModel(
            checkpoint: checkpoint, team: ThreadTeam(threadCount: try values.integer("threads", in: 1...256)),
            maximumRows: try values.integer("maximum-rows", in: 1...4096))
        return (
            SamplerService(
                model: model, fingerprint: checkpoint.fingerprint,
                instanceID: ServiceProcess.instanceID("sampler"), loop: hot),
            "\(model.weightByteCount >> 10) KiB of weights"
        )
    }

    /// Answers a call.
    public func handle(_ call: ServerCall) async throws(RPCError) -> RPCPayload {
        switch call.method {
        case .sample:
            var timing = calls.begin(call.trace)
            let request = try ServiceInputs.decoded { () throws(WireError) in
                try SampleRequest(decoding: call.metadata)
            }
            timing.read()
            let reply = try await compute.sample(request, call.body)
            timing.computed()
            let payload = RPCPayload(metadata: reply.encoded())
            calls.end(timing, rows: request.rows.count)
            return payload
        case .status:
            return RPCPayload(metadata: StatusReply(counters: await counters()).encoded())
        default: throw RPCError(.unknownMethod, "the sampler does not answer method \(call.method.rawValue)")
        }
    }

    /// Those of the server, the kernels' time and the limit on rows.
    public func counters() async -> [String: Int64] {
        await Task(executorPreference: loop) { [self] in await ownCounters() }.value
    }

    private func ownCounters() async -> [String: Int64] {
        var counters = memory.merging(server?.counters ?? [:]) { _, new in new }
        counters["kernel_nanoseconds"] = await compute.kernelNanoseconds
        return counters
    }

    /// Closes every connection at once. On the loop.
    public func close() { server?.close() }

    /// Stops taking calls and lets those that run finish.
    public func drain() async {
        await Task(executorPreference: loop) { [self] in await server?.drain(withinMicroseconds: 10_000_000) }.value
    }
}

/// Runs the head and the sampling on a loop of its own, one call at a time.
actor SamplerCompute: SamplerComputation {
    private nonisolated let loop: any Loop
    private let model: HeadModel
    private let logits: AlignedBuffer
    private var sampler = TokenSampler()
    private var kernelTime = Stopwatch()

    /// Time spent in the head and in sampling.
    var kernelNanoseconds: Int64 { kernelTime.nanoseconds }

    nonisolated var unownedExecutor: UnownedSerialExecutor { loop.asUnownedSerialExecutor() }

    init(loop: any Loop, model: HeadModel) {
        self.loop = loop
        self.model = model
        logits = AlignedBuffer(count: Self.scratchByteCount(model))
    }

    /// Bytes of the logits.
    static func scratchByteCount(_ model: HeadModel) -> Int {
        4 * model.maximumRows * model.configuration.vocabularySize
    }

    func sample(_ request: SampleRequest, _ body: AlignedBuffer?) throws(RPCError) -> SampleReply {
        guard let body else { throw RPCError(.invalidArgument, "sample call has no body") }
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
        let started = Stopwatch.now
        defer { kernelTime.add(since: started) }
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
        parameters.logitBias = row.sampling.logitBias.map { (id: $0.id, bias: $0.bias) }
        parameters.banned = row.banned
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
