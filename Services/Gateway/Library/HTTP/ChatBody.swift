import Tokenization
import WireProtocol

extension CompletionJob {
    private static let chatRules = commonRules.merging([
        "messages": .read, "top_logprobs": .read, "modalities": .only([.array([.string("text")])]),
        "audio": .unsupported, "reasoning_effort": .unsupported, "parallel_tool_calls": .unsupported,
        "prediction": .unsupported, "web_search_options": .unsupported, "verbosity": .unsupported,
    ]) { $1 }

    /// The job in a body of `/v1/chat/completions`.
    package static func chat(_ body: [UInt8]) throws(APIError) -> CompletionJob {
        let fields = try RequestFields(RequestFields.document(body))
        try fields.check(chatRules)
        var job = CompletionJob(.chat, prompts: [.chat(try messages(fields))])
        try job.readCommon(fields)
        let wantsLogprobs = try fields.flag("logprobs")
        let top = try fields.integer("top_logprobs", in: 0...Int(MessageLimits.topLogprobs))
        if wantsLogprobs { job.template.logprobs = UInt8(top ?? 0) }
        guard wantsLogprobs || (top ?? 0) == 0 else {
            throw fields.refusal("top_logprobs", "needs logprobs to be true")
        }
        return job
    }

    /// The turns of a conversation.
    static func messages(_ fields: RequestFields) throws(APIError) -> [GenerateRequest.ChatTurn] {
        guard let value = fields["messages"] else { throw fields.refusal("messages", "is missing") }
        guard case .array(let elements) = value, (1...MessageLimits.chatTurns).contains(elements.count) else {
            throw fields.refusal("messages", "must be an array of 1 to \(MessageLimits.chatTurns) messages")
        }
        var turns: [GenerateRequest.ChatTurn] = []
        var bytes = 0
        for (index, element) in elements.enumerated() {
            let message = try RequestFields(element, path: "messages[\(index)].")
            let turn = try turn(message)
            bytes += turn.content.utf8.count
            guard bytes <= MessageLimits.promptBytes else {
                throw fields.refusal("messages", "have more than \(MessageLimits.promptBytes) bytes of text")
            }
            turns.append(turn)
        }
        return turns
    }

    private static func turn(_ message: RequestFields) throws(APIError) -> GenerateRequest.ChatTurn {
        try message.check([
            "role": .read, "content": .read, "name": .unsupported, "tool_call_id": .harmless,
            "tool_calls": .only([.array([])]), "function_call": .unsupported, "refusal": .unsupported,
            "audio": .unsupported, "annotations": .only([.array([])]),
        ])
        let roles = [
            "system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool",
        ]
        guard let given = try message.text("role"), let role = roles[given] else {
            throw message.refusal("role", "must be system, developer, user, assistant or tool")
        }
        return GenerateRequest.ChatTurn(role: role, content: try content(message, isOptional: role == "assistant"))
    }

    /// A text, or parts of type text, which are joined.
    private static func content(_ message: RequestFields, isOptional: Bool) throws(APIError) -> String {
        switch message["content"] {
        case nil where isOptional: return ""
        case .string(let text): return text
        case .array(let parts):
            var content = ""
            for (index, part) in parts.enumerated() {
                let fields = try RequestFields(part, path: "\(message.prefix)content[\(index)].")
                guard try fields.text("type") == "text" else {
                    throw fields.refusal("type", "is supported only as \"text\"")
                }
                try fields.check(["type": .read, "text": .read])
                guard let text = try fields.text("text", limit: MessageLimits.promptBytes) else {
                    throw fields.refusal("text", "is missing")
                }
                content += text
            }
            return content
        default: throw message.refusal("content", "must be a string or an array of parts of type text")
        }
    }
}
