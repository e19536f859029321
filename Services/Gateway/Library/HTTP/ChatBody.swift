import JSON
import WireProtocol

extension CompletionJob {
    /// The job in a body of `/v1/chat/completions`.
    package static func chat(_ body: [UInt8]) throws(APIError) -> CompletionJob {
        let fields = try RequestFields(RequestFields.document(body))
        var counts = FieldCounts()
        try fields.check(.chat, &counts)
        var job = CompletionJob(.chat, prompts: [.chat(try messages(fields, &counts))])
        job.thinks = try thinks(fields, &counts)
        job.fields = counts
        try job.readCommon(fields)
        let wantsLogprobs = try fields.flag("logprobs")
        let top = try fields.integer("top_logprobs", in: 0...MessageLimits.topLogprobs)
        if wantsLogprobs { job.request.topLogprobs = top ?? 0 }
        guard wantsLogprobs || (top ?? 0) == 0 else {
            throw fields.refusal("top_logprobs", "needs logprobs to be true")
        }
        return job
    }

    /// Whether the model is asked to think first, which several names say; all that are given must agree.
    static func thinks(_ fields: RequestFields, _ counts: inout FieldCounts) throws(APIError) -> Bool {
        var given: [Bool] = []
        if fields["enable_thinking"] != nil { given.append(try fields.flag("enable_thinking")) }
        if let options = try fields.object("chat_template_kwargs") {
            try options.check(.templateOptions, &counts)
            for name in ["enable_thinking", "thinking"] where options[name] != nil {
                given.append(try options.flag(name))
            }
        }
        guard Set(given).count < 2 else {
            throw fields.refusal("enable_thinking", "is given twice, as true and as false")
        }
        return given.first ?? false
    }

    /// The turns of a conversation.
    static func messages(
        _ fields: RequestFields, _ counts: inout FieldCounts
    ) throws(APIError) -> [GenerateRequest.ChatTurn] {
        guard let value = fields["messages"] else { throw fields.refusal("messages", "is missing") }
        guard case .array(let elements) = value, !elements.isEmpty else {
            throw fields.refusal("messages", "must be an array of at least one message")
        }
        var turns: [GenerateRequest.ChatTurn] = []
        turns.reserveCapacity(elements.count)
        for (index, element) in elements.enumerated() {
            turns.append(try turn(try RequestFields(element, path: "messages[\(index)]."), &counts))
        }
        return turns
    }

    private static func turn(
        _ message: RequestFields, _ counts: inout FieldCounts
    ) throws(APIError) -> GenerateRequest.ChatTurn {
        try message.check(.message, &counts)
        let roles = [
            "system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool",
        ]
        guard let given = try message.text("role") else { throw message.refusal("role", "is missing") }
        guard let role = roles[given] else {
            throw message.refusal(
                "role", "must be system, developer, user, assistant or tool, not \"\(given.prefix(32))\"")
        }
        let content = try content(message, isOptional: role == "assistant", &counts)
        return GenerateRequest.ChatTurn(role: role, content: try reasoning(message, role) + content)
    }

    /// An assistant's reasoning as the chat format finds it in the text of a turn. It keeps that of turns after the last
    /// question and drops what was thought before.
    private static func reasoning(_ message: RequestFields, _ role: String) throws(APIError) -> String {
        for name in ["reasoning_content", "reasoning"] {
            guard let text = try message.text(name, limit: .max), role == "assistant", !text.isEmpty else { continue }
            return "<think>\n\(text)\n</think>\n\n"
        }
        return ""
    }

    /// A text, or parts of type text, which are joined.
    private static func content(
        _ message: RequestFields, isOptional: Bool, _ counts: inout FieldCounts
    ) throws(APIError) -> String {
        switch message["content"] {
        case nil where isOptional: return ""
        case .string(let text): return text
        case .array(let parts):
            var content = ""
            for (index, part) in parts.enumerated() {
                content += try text(part, "\(message.prefix)content[\(index)].", &counts)
            }
            return content
        default: throw message.refusal("content", "must be a string or an array of parts of type text")
        }
    }

    private static func text(
        _ part: JSONValue, _ path: String, _ counts: inout FieldCounts
    ) throws(APIError) -> String {
        if case .string(let text) = part { return text }
        let fields = try RequestFields(part, path: path)
        guard let type = try fields.text("type"), type == "text" else {
            throw fields.refusal("type", "is supported only as \"text\": only text goes in and comes out here")
        }
        try fields.check(.part, &counts)
        guard let text = try fields.text("text", limit: .max) else { throw fields.refusal("text", "is missing") }
        return text
    }
}
