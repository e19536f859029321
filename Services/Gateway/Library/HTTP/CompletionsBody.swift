import JSON
import Tokenization
import WireProtocol

extension CompletionJob {
    /// The job in a body of `/v1/completions`.
    package static func completions(_ body: [UInt8]) throws(APIError) -> CompletionJob {
        let fields = try RequestFields(RequestFields.document(body))
        var counts = FieldCounts()
        try fields.check(.completions, &counts)
        var job = CompletionJob(.completions, prompts: try prompts(fields, text: "prompt", ids: "prompt").prompts)
        job.fields = counts
        try job.readCommon(fields)
        job.maximumTokens = job.maximumTokens ?? 16
        job.addsSpecialTokens = try fields.flag("add_special_tokens", fallback: true)
        job.echoes = try fields.flag("echo")
        // Clients of both interfaces say false for none.
        if fields["logprobs"] != .bool(false) {
            job.request.topLogprobs = try fields.integer("logprobs", in: 0...MessageLimits.topLogprobs)
        }
        guard !job.echoes || !job.wantsLogprobs else {
            throw fields.refusal("echo", "is not supported together with logprobs: prompts have none here")
        }
        return job
    }

    /// The prompts in a field that holds a text or several, or in one that holds token ids or several lists of them.
    static func prompts(
        _ fields: RequestFields, text: String, ids: String
    ) throws(APIError) -> (prompts: [GenerateRequest.Prompt], isBatch: Bool) {
        let name = fields[text] == nil ? ids : text
        guard let value = fields[name] else { throw fields.refusal(text, "is missing") }
        guard case .array(let elements) = value else {
            return ([try prompt(fields, name, value)], false)
        }
        switch elements.first {
        case nil: throw fields.refusal(name, "is empty")
        case .number: return ([.tokens(try fields.tokens(name, elements, limit: MessageLimits.promptTokens))], false)
        default:
            guard elements.count <= maximumChoices else {
                throw fields.refusal(name, "has \(elements.count) prompts, the limit is \(maximumChoices)")
            }
            var prompts: [GenerateRequest.Prompt] = []
            for element in elements { prompts.append(try prompt(fields, name, element)) }
            return (prompts, true)
        }
    }

    private static func prompt(
        _ fields: RequestFields, _ name: String, _ value: JSONValue
    ) throws(APIError) -> GenerateRequest.Prompt {
        switch value {
        case .string(let text): return .text(text)
        case .array(let ids): return .tokens(try fields.tokens(name, ids, limit: MessageLimits.promptTokens))
        default: throw fields.refusal(name, "must be a string, an array of token ids, or an array of either")
        }
    }
}
