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
    /// A row to be sampled.
    struct Row {
        let id: UInt64
        /// Row of the step whose hidden state is sampled.
        let hiddenRow: Int
        let row: SampleRow

        /// Words of the row in a call at most: those of its other fields, with their headers, and of its lists.
        var words: Int { 44 + row.history.count + 2 * row.sampling.logitBias.count + row.banned.count }
    }

    /// Words of all rows of one sampler call; a frame has room for 262144.
    static let words = MessageLimits.penalisedTokens + 44

    let sampler: ReplicaSet
    let hidden: Int
    /// Rows that one call may have.
    var rowsPerCall = SampleRequest.maximumRows

    /// What the rows come to; `body` makes the tensor of a call, or none.
    func sample(
        _ rows: [Row], _ trace: inout StepTrace, body: ([Row]) -> AlignedBuffer?
    ) async throws(RPCError) -> [(id: UInt64, result: Result<Token, RPCError>)] {
        var sampled: [(id: UInt64, result: Result<Token, RPCError>)] = []
        for batch in batches(rows) {
            let outcomes = try await call(batch, body(batch), &trace)
            for (row, outcome) in zip(batch, outcomes) { sampled.append((row.id, Self.result(outcome))) }
        }
        return sampled
    }

    private static func result(_ outcome: SampleOutcome) -> Result<Token, RPCError> {
        switch outcome {
        case .token(let token): .success(token)
        case .refused(let failure): .failure(RPCError(failure.code, failure.message, link: .sampler))
        }
    }

    private func batches(_ rows: [Row]) -> [[Row]] {
        var batches: [[Row]] = []
        var words = Self.words
        for row in rows {
            if words + row.words > Self.words || batches[batches.count - 1].count >= rowsPerCall {
                batches.append([])
                words = 0
            }
            words += row.words
            batches[batches.count - 1].append(row)
        }
        return batches
    }

    private func call(
        _ batch: [Row], _ body: AlignedBuffer?, _ trace: inout StepTrace
    ) async throws(RPCError) -> [SampleOutcome] {
        let started = Stopwatch.now
        defer { trace.sampler(since: started, rows: batch.count) }
        let request = SampleRequest(hidden: UInt32(hidden), rows: batch.map(\.row))
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
