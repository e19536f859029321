import GatewayCore
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

/// How a body becomes a job whose prompts are tokenized and checked against the model.
extension CompletionEngine {
    /// The job in a body.
    func job(in body: [UInt8], _ parse: @escaping CompletionJob.Parser) async throws(APIError) -> CompletionJob {
        let requestTokens = requestTokens
        return try await Background.run(reading: body.count) { [self] () throws(APIError) in
            var job = try parse(body)
            defaults.fill(&job.request.sampling, said: job.saidSampling)
            guard serves(job.model) else { throw .unknownModel(job.model, modelName) }
            for prompt in job.prompts {
                let request = try request(after: prompt, job, requestTokens)
                let echo = job.echoes ? text(of: prompt) : ""
                for number in 0..<job.choicesPerPrompt {
                    var own = request
                    own.sampling.seed &+= UInt64(number)
                    job.completions.append(
                        Completion(
                            own, index: job.completions.count, isFirstOfPrompt: number == 0, echo: echo,
                            keeping: job.keeping))
                }
            }
            return job
        }
    }

    /// - requestTokens: those of prompt and answer that one request may have.
    private func request(
        after prompt: GenerateRequest.Prompt, _ job: CompletionJob, _ requestTokens: Int
    ) throws(APIError) -> Request {
        var request = job.request
        request.maximumTokens = job.maximumTokens ?? 1
        do throws(RPCError) {
            request = try self.request(
                request, after: prompt, ignoresEnd: job.ignoresEnd, thinking: job.thinks,
                addingSpecialTokens: job.addsSpecialTokens)
            if job.maximumTokens == nil {
                request.maximumTokens = max(1, min(requestTokens - request.promptCount, MessageLimits.generatedTokens))
                try checkLengths(request)
            }
        } catch { throw APIError(error) }
        guard request.minimumTokens <= request.maximumTokens else {
            throw .invalid(
                "min_tokens", "(\(request.minimumTokens)) is more than max_tokens (\(request.maximumTokens))")
        }
        return request
    }

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
