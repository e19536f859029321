import EngineCore
import Observability
import RPC
import Scheduling
import Serving
import WireProtocol

/// What stands behind an engine's steps: the model, or something that takes the model's time. The engine, its scheduler
/// and its pools do not know which. It belongs to the engine's actor.
protocol StepComputation: AnyObject {
    /// Ids of prompts are below it.
    var vocabularySize: Int { get }
    /// Counters for the status call.
    var counters: [String: Int64] { get }
    /// Computes a planned step for the requests that are still there, and tells what of their state is ready to be handed
    /// out. `continues` when the step follows the last one without a pause.
    func run(
        _ step: Step, continues: Bool, for engine: isolated AttentionEngine, _ trace: inout StepTrace
    ) async throws(RPCError) -> Engine<RPCError>.Outcome
    /// Microseconds from now until the last of a completed prompt's state has left the instance.
    func handOutMicroseconds(of id: UInt64, now: UInt64) -> UInt64
}

/// Sends rows to the sampler, in calls whose metadata, histories of penalised requests and biases above all, fit a frame.
struct SamplerCalls {
    /// Words of all rows of one sampler call; a frame has room for 262144.
    static let words = MessageLimits.penalisedTokens + 44

    let sampler: ReplicaSet
    let hidden: Int
    /// Rows that one call may have.
    var rowsPerCall = SampleRequest.maximumRows

    /// What those of the entries come to that are to be sampled, and whose requests are still there. `body` makes the tensor
    /// of a call for some of them, or none.
    func sample(
        _ entries: [StepEntry], of engine: isolated AttentionEngine, _ trace: inout StepTrace,
        body: ([Int]) -> AlignedBuffer?
    ) async throws(RPCError) -> [(id: UInt64, result: Result<Token, RPCError>)] {
        let sampling = entries.indices.filter { entries[$0].samples }
        let rows = sampling.compactMap { index in engine.request(entries[index].id).map { (index, $0.nextRow) } }
        var sampled: [(id: UInt64, result: Result<Token, RPCError>)] = []
        for batch in batches(rows) {
            let outcomes = try await call(batch.map(\.row), body(batch.map(\.entry)), &trace)
            for (row, outcome) in zip(batch, outcomes) { sampled.append((entries[row.entry].id, Self.result(outcome))) }
        }
        return sampled
    }

    private static func result(_ outcome: SampleOutcome) -> Result<Token, RPCError> {
        switch outcome {
        case .token(let token): .success(token)
        case .refused(let failure): .failure(RPCError(failure.code, failure.message, link: .sampler))
        }
    }

    /// Words of a row in a call at most: those of its other fields, with their headers, and of its lists.
    private static func words(_ row: SampleRow) -> Int {
        44 + row.history.count + 2 * row.sampling.logitBias.count + row.banned.count
    }

    private func batches(_ rows: [(entry: Int, row: SampleRow)]) -> [[(entry: Int, row: SampleRow)]] {
        var batches: [[(entry: Int, row: SampleRow)]] = []
        var words = Self.words
        for row in rows {
            let more = Self.words(row.row)
            if words + more > Self.words || batches[batches.count - 1].count >= rowsPerCall {
                batches.append([])
                words = 0
            }
            words += more
            batches[batches.count - 1].append(row)
        }
        return batches
    }

    private func call(
        _ batch: [SampleRow], _ body: AlignedBuffer?, _ trace: inout StepTrace
    ) async throws(RPCError) -> [SampleOutcome] {
        let started = Stopwatch.now
        defer { trace.sampler(since: started, rows: batch.count) }
        let request = SampleRequest(hidden: UInt32(hidden), rows: batch)
        let payload: RPCPayload
        do throws(RPCError) {
            payload = try await sampler.call(
                .sample, RPCPayload(metadata: request.encoded(), body: body), timeoutMicroseconds: 10_000_000,
                trace: trace.lead)
        } catch {
            throw error.met(at: .sampler, sampler.name)
        }
        let reply: SampleReply
        do throws(WireError) { reply = try SampleReply(decoding: payload.metadata) } catch {
            throw RPCError(.internal, "the sampler's answer: \(error)", link: .sampler)
        }
        guard reply.outcomes.count == batch.count else {
            throw RPCError(
                .internal, "the sampler answered \(reply.outcomes.count) of \(batch.count) rows", link: .sampler)
        }
        return reply.outcomes
    }
}
