import Observability
import Scheduling
import Serving
import StatePools
import WireProtocol

/// What the engine keeps of a request.
struct EngineRequest: Sendable {
    /// Prompt and generated tokens.
    var history: [UInt32]
    let promptCount: Int
    let role: Part
    let maximumTokens: Int
    let replayCount: Int
    let priority: Int
    let sampling: Sampling
    let topLogprobs: Int
    let stopTokenIDs: [UInt32]
    /// Tokens before which no stop token is chosen.
    let minimumTokens: Int
    /// The decode instance's generation, for segments.
    let generation: UInt64
    /// False when a hand-out ends without a token.
    let samples: Bool
    /// Tokens of the prompt that are computed.
    var computed = 0
    /// Its trace.
    let trace: TraceContext
    /// Its number among the live requests.
    let number: UInt64

    /// A request that is decoded here, its prompt computed here or received.
    init(_ message: TokensRequest, trace: TraceContext, number: UInt64) {
        self.trace = trace
        self.number = number
        let request = message.request
        history = request.tokens
        promptCount = request.promptCount
        role = message.prefill.isEmpty ? .both : .decode
        maximumTokens = request.maximumTokens
        replayCount = request.generatedCount
        priority = request.priority
        sampling = request.sampling
        topLogprobs = request.topLogprobs ?? 0
        stopTokenIDs = request.stopTokens
        minimumTokens = request.minimumTokens
        generation = 0
        samples = true
    }

    /// A prompt whose state is handed out.
    init(_ message: PrefillRequest, trace: TraceContext, number: UInt64) {
        self.trace = trace
        self.number = number
        let request = message.request
        history = request.tokens
        promptCount = request.promptCount
        role = .prefill
        maximumTokens = request.maximumTokens
        samples = request.maximumTokens > 0
        replayCount = 0
        priority = request.priority
        sampling = request.sampling
        topLogprobs = request.topLogprobs ?? 0
        stopTokenIDs = request.stopTokens
        minimumTokens = request.minimumTokens
        generation = message.generation
    }

    /// Tokens that were generated, replayed ones included.
    var generated: Int { history.count - promptCount }

    /// Tokens that must not come next.
    var banned: [UInt32] { generated < minimumTokens ? stopTokenIDs : [] }

    /// How the token after `history` is sampled.
    var sampleRow: SampleRow {
        SampleRow(
            sampling: sampling, position: UInt64(history.count), topLogprobs: topLogprobs,
            history: sampling.hasPenalties ? history : [],
            promptCount: sampling.hasPenalties ? promptCount : 0, banned: banned)
    }

    /// What the scheduler has to know.
    func scheduled(id: UInt64) -> Request {
        Request(
            id: id, promptCount: promptCount, generatedCount: replayCount, maximumTokens: maximumTokens, part: role,
            priority: priority)
    }

    /// Nil while the request goes on after its last token, otherwise how it ended.
    var end: End? {
        let stops = history.last.map(stopTokenIDs.contains) ?? false
        guard stops || generated >= maximumTokens else { return nil }
        return End(reason: stops ? .stop : .length, promptTokens: promptCount, completionTokens: generated)
    }
}
