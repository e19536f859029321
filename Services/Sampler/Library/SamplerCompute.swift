import EventLoop
import HybridModel
import Numerics
import Observability
import RPC
import Sampling
import Serving
import WireProtocol

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
        var outcomes: [SampleOutcome] = []
        outcomes.reserveCapacity(request.rows.count)
        for (index, row) in request.rows.enumerated() {
            let buffer = UnsafeMutableBufferPointer(start: out + index * c.vocabularySize, count: c.vocabularySize)
            outcomes.append(sample(row, buffer))
        }
        return SampleReply(outcomes: outcomes)
    }

    /// A row that no token can be chosen for is refused alone: the others belong to other requests.
    private func sample(_ row: SampleRow, _ logits: UnsafeMutableBufferPointer<Float>) -> SampleOutcome {
        do throws(SamplingError) { return .token(try sampler.sample(logits, row)) } catch {
            let code = error == .everyTokenIsBanned ? ErrorCode.invalidArgument : .internal
            return .refused(Failure(code: code, message: error.description))
        }
    }
}
