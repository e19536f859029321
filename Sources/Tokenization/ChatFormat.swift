/// One turn of a conversation.
public struct ChatMessage: Sendable, Equatable {
    /// Who speaks.
    public enum Role: String, Sendable {
        /// Instructions.
        case system
        /// The person.
        case user
        /// The model.
        case assistant
        /// The result of a tool call.
        case tool
    }

    /// A call the model made.
    public struct ToolCall: Sendable, Equatable {
        /// Name of the function.
        public var name: String
        /// The arguments, a JSON object as text; goes into the prompt as it is.
        public var arguments: String

        /// A call of a function.
        public init(name: String, arguments: String) {
            self.name = name
            self.arguments = arguments
        }
    }

    /// Who speaks.
    public var role: Role
    /// What is said. An assistant's may begin with its reasoning up to `</think>`.
    public var content: String
    /// An assistant's reasoning if it is kept apart from the content.
    public var reasoning: String?
    /// An assistant's tool calls.
    public var toolCalls: [ToolCall]

    /// A turn.
    public init(_ role: Role, _ content: String, reasoning: String? = nil, toolCalls: [ToolCall] = []) {
        self.role = role
        self.content = content
        self.reasoning = reasoning
        self.toolCalls = toolCalls
    }
}

/// The chat format of the Ling 2.x family: a pure function from a conversation to a prompt.
public enum ChatFormat {
    /// The token that ends a turn.
    public static let turnEnd = "<|role_end|>"
    /// The tokens that tell turns and who speaks in them. Said by somebody, they are text like any other.
    static let turnMarks = ["<role>", "</role>", turnEnd]

    /// The prompt as one text, which does not tell what the format put there from what was said.
    public static func render(
        messages: [ChatMessage], tools: [String] = [], thinking: Bool = false, addGenerationPrompt: Bool = true
    ) -> String {
        pieces(messages: messages, tools: tools, thinking: thinking, addGenerationPrompt: addGenerationPrompt)
            .map(\.text).joined()
    }

    /// The prompt. A system turn always comes first and says whether to think; `tools` are JSON objects as text, one
    /// each; reasoning is kept only in turns after the last question of the user. With `addGenerationPrompt` the
    /// assistant's turn is opened at the end.
    public static func pieces(
        messages: [ChatMessage], tools: [String] = [], thinking: Bool = false, addGenerationPrompt: Bool = true
    ) -> [PromptPiece] {
        var out = PromptPieces()
        out.open("SYSTEM")
        if let first = messages.first, first.role == .system { out.say(first.content + "\n") }
        if !tools.isEmpty { out.write(toolsBlock(tools)) }
        out.say("detailed thinking \(thinking ? "on" : "off")")
        out.mark(turnEnd)
        let lastQuestion = messages.lastIndex(where: isQuestion) ?? messages.count - 1
        for (index, message) in messages.enumerated() {
            switch message.role {
            case .system: if index > 0 { out.turn("SYSTEM", message.content) }
            case .user: out.turn("HUMAN", message.content)
            case .assistant: assistantTurn(message, keepsReasoning: index > lastQuestion, &out)
            case .tool:
                if index == 0 || messages[index - 1].role != .tool { out.open("OBSERVATION") }
                out.write("\n<tool_response>\n")
                out.say(message.content)
                out.write("\n</tool_response>")
                if index + 1 == messages.count || messages[index + 1].role != .tool { out.mark(turnEnd) }
            }
        }
        if addGenerationPrompt { out.open("ASSISTANT") }
        return out.pieces
    }

    /// Tool results may also come as a user's turn; such a turn is no question.
    private static func isQuestion(_ message: ChatMessage) -> Bool {
        message.role == .user
            && !(message.content.hasPrefix("<tool_response>") && message.content.hasSuffix("</tool_response>"))
    }

    private static func toolsBlock(_ tools: [String]) -> String {
        """
        # Tools

        You may call one or more functions to assist with the user query.

        You are provided with function signatures within <tools></tools> XML tags:
        <tools>
        \(tools.joined(separator: "\n"))
        </tools>

        For each function call, return a json object with function name and arguments within \
        <tool_call></tool_call> XML tags:
        <tool_call>
        {"name": <function-name>, "arguments": <args-json-object>}
        </tool_call>

        """
    }

    private static func assistantTurn(_ message: ChatMessage, keepsReasoning: Bool, _ out: inout PromptPieces) {
        out.open("ASSISTANT")
        var (reasoning, content) = (message.reasoning ?? "", message.content)
        if message.reasoning == nil { (reasoning, content) = separateReasoning(message.content) }
        reasoning = trimmingNewlines(reasoning, left: true, right: true)
        if keepsReasoning, !reasoning.isEmpty {
            content = trimmingNewlines(content, left: true, right: false)
            out.write("\n<think>\n")
            out.say(reasoning)
            out.write("\n</think>\n\n")
        }
        out.say(content)
        for (index, call) in message.toolCalls.enumerated() {
            if index > 0 || !content.isEmpty { out.say("\n") }
            out.write("<tool_call>\n")
            out.say("{\"name\": \"\(call.name)\", \"arguments\": \(call.arguments)}")
            out.write("\n</tool_call>")
        }
        out.mark(turnEnd)
    }

    /// Splits an assistant's text at its first `</think>` (reasoning before it) and its last (the answer after it).
    private static func separateReasoning(_ text: String) -> (reasoning: String, content: String) {
        let parts = pieces(of: text, between: "</think>")
        guard parts.count > 1 else { return ("", text) }
        let reasoning = pieces(of: parts[0], between: "<think>").last ?? ""
        return (reasoning, trimmingNewlines(parts[parts.count - 1], left: true, right: false))
    }

    private static func pieces(of text: String, between separator: String) -> [String] {
        let (bytes, mark) = (Array(text.utf8), Array(separator.utf8))
        var parts: [String] = []
        var start = 0
        var place = 0
        while place + mark.count <= bytes.count {
            if bytes[place] == mark[0], bytes[place..<place + mark.count].elementsEqual(mark) {
                parts.append(String(decoding: bytes[start..<place], as: UTF8.self))
                place += mark.count
                start = place
            } else {
                place += 1
            }
        }
        return parts + [String(decoding: bytes[start...], as: UTF8.self)]
    }

    private static func trimmingNewlines(_ text: String, left: Bool, right: Bool) -> String {
        var bytes = Substring(text).utf8
        while left, bytes.first == UInt8(ascii: "\n") { bytes.removeFirst() }
        while right, bytes.last == UInt8(ascii: "\n") { bytes.removeLast() }
        return String(Substring(bytes))
    }
}
