import RPC
import Serving
import WireProtocol

/// Work that is long for a loop on which every client waits.
enum Background {
    /// Bytes of text or JSON that are read at once on the loop; more of them are read elsewhere.
    private static let longText = 16 << 10

    /// Runs `body` here, or on another thread when it has to read many bytes.
    static func run<Value: Sendable>(
        reading byteCount: Int, _ body: @escaping @Sendable () throws(APIError) -> Value
    ) async throws(APIError) -> Value {
        guard byteCount > longText else { return try body() }
        let task = Task.detached { () -> Result<Value, APIError> in
            do throws(APIError) { return .success(try body()) } catch { return .failure(error) }
        }
        return try await task.value.get()
    }
}

/// A job with its prompts tokenized and checked against the model.
struct CompletionPlan: Sendable {
    /// Reads a body into a job.
    typealias Parser = @Sendable ([UInt8]) throws(APIError) -> CompletionJob

    let job: CompletionJob
    let choices: [Choice]
    /// Tokens of all prompts, each counted once.
    let promptTokens: Int

    /// - requestTokens: those of prompt and answer that one request may have.
    private init(
        _ body: [UInt8], _ parse: Parser, _ engine: CompletionEngine, requestTokens: Int
    ) throws(APIError) {
        var job = try parse(body)
        engine.defaults.fill(&job.request.sampling, said: job.saidSampling)
        self.job = job
        guard engine.serves(job.model) else { throw .unknownModel(job.model, engine.modelName) }
        var choices: [Choice] = []
        var promptTokens = 0
        for prompt in job.prompts {
            let request = try Self.tokenized(prompt, job, engine, requestTokens)
            let echo = job.echoes ? engine.text(of: prompt) : ""
            promptTokens += request.promptCount
            for number in 0..<job.choicesPerPrompt {
                var own = request
                own.sampling.seed &+= UInt64(number)
                choices.append(Choice(index: choices.count, request: own, isFirstOfPrompt: number == 0, echo: echo))
            }
        }
        self.choices = choices
        self.promptTokens = promptTokens
    }

    /// Plans what a body asks for.
    static func make(
        _ body: [UInt8], _ parse: @escaping Parser, _ engine: CompletionEngine
    ) async throws(APIError) -> CompletionPlan {
        let requestTokens = engine.requestTokens
        return try await Background.run(reading: body.count) { () throws(APIError) in
            try CompletionPlan(body, parse, engine, requestTokens: requestTokens)
        }
    }

    private static func tokenized(
        _ prompt: GenerateRequest.Prompt, _ job: CompletionJob, _ engine: CompletionEngine, _ requestTokens: Int
    ) throws(APIError) -> Request {
        var request = job.request
        request.maximumTokens = job.maximumTokens ?? 1
        do throws(RPCError) {
            request = try engine.request(
                request, after: prompt, ignoresEnd: job.ignoresEnd, thinking: job.thinks,
                addingSpecialTokens: job.addsSpecialTokens)
            if job.maximumTokens == nil {
                request.maximumTokens = max(1, min(requestTokens - request.promptCount, MessageLimits.generatedTokens))
                try engine.checkLengths(request)
            }
        } catch { throw APIError(error) }
        guard request.minimumTokens <= request.maximumTokens else {
            throw .invalid(
                "min_tokens", "(\(request.minimumTokens)) is more than max_tokens (\(request.maximumTokens))")
        }
        return request
    }
}

extension CompletionEngine {
    /// The token ids of a prompt, whatever its length.
    func tokens(
        of prompt: GenerateRequest.Prompt, thinking: Bool, addingSpecialTokens: Bool
    ) throws(APIError) -> [UInt32] {
        do throws(RPCError) {
            return try encode(prompt, thinking: thinking, addingSpecialTokens: addingSpecialTokens)
        } catch { throw APIError(error) }
    }

    /// A prompt's text, for an answer that begins with it.
    func text(of prompt: GenerateRequest.Prompt) -> String {
        switch prompt {
        case .text(let text): return text
        case .tokens(let ids): return text(of: ids, skipsSpecial: false)
        case .chat: return ""
        }
    }

    /// The text of token ids; broken characters become U+FFFD.
    func text(of ids: [UInt32], skipsSpecial: Bool) -> String {
        guard let codec else { return "" }
        var bytes: [UInt8] = []
        for id in ids where !(skipsSpecial && codec.isSpecial(id)) { bytes += codec.bytes(of: id) ?? [] }
        return String(decoding: bytes, as: UTF8.self)
    }
}
