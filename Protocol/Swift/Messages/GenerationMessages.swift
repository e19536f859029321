import Serving

/// What a client asks the gateway to complete: text, token ids or a conversation (method generate).
public struct GenerateRequest: Sendable, Equatable {
    /// The prompt.
    public enum Prompt: Sendable, Equatable {
        /// UTF-8 text, tokenized by the gateway.
        case text(String)
        /// Token ids.
        case tokens([UInt32])
        /// A conversation, put into the model's chat format and tokenized by the gateway.
        case chat([ChatTurn])
    }

    /// One turn of a conversation.
    public struct ChatTurn: Sendable, Equatable {
        /// "system", "user", "assistant" or "tool".
        public var role: String
        /// What is said.
        public var content: String

        /// A turn.
        public init(role: String, content: String) {
            self.role = role
            self.content = content
        }
    }

    /// Model name; empty means the one that is served.
    public var model = ""
    /// The prompt.
    public var prompt: Prompt
    /// True to go on past the model's own end tokens.
    public var ignoresEnd = false
    /// Everything else: limits, stops, sampling and logprobs. It has no prompt, and no priority on the wire.
    public var request: Request

    /// A message that asks for what `request` says, after `prompt`.
    public init(prompt: Prompt, request: Request = Request(prompt: [])) {
        self.prompt = prompt
        self.request = request
    }

    /// Metadata of the request frame.
    public func encoded() -> [UInt8] {
        var writer = FieldWriter()
        writer.put(1, model)
        switch prompt {
        case .text(let text): writer.put(2, text)
        case .tokens(let ids): writer.put(3, array: ids)
        case .chat(let turns): writer.put(9, strings: turns.flatMap { [$0.role, $0.content] })
        }
        writer.put(4, UInt32(clamping: request.maximumTokens))
        if let logprobs = request.topLogprobs { writer.put(5, UInt8(clamping: logprobs)) }
        if !request.stopTexts.isEmpty { writer.put(6, strings: request.stopTexts) }
        if !request.stopTokens.isEmpty { writer.put(7, array: request.stopTokens) }
        if ignoresEnd { writer.put(8, UInt8(1)) }
        if request.minimumTokens > 0 { writer.put(0x8000 | 10, UInt32(clamping: request.minimumTokens)) }
        if !request.cacheSalt.isEmpty { writer.put(0x8000 | 11, request.cacheSalt) }
        request.sampling.encode(into: &writer)
        return writer.bytes
    }

    /// Parses metadata; refuses what is out of range, naming the field.
    ///
    /// - Throws: `WireError` that names the field.
    public init(decoding bytes: [UInt8]) throws(WireError) {
        let reader = try FieldReader(bytes, known: 1...11, Sampling.tags)
        self.init(prompt: try Self.prompt(reader))
        model = try reader.text(1, "model", limit: MessageLimits.textBytes) ?? ""
        request.maximumTokens = try reader.count(
            4, "max_tokens", in: 1...MessageLimits.generatedTokens, fallback: request.maximumTokens)
        request.topLogprobs = try reader.logprobs(5)
        request.stopTexts = try reader.strings(
            6, "stop", limit: MessageLimits.stopStrings, byteLimit: MessageLimits.stopBytes)
        request.stopTokens = try reader.array(7, "stop_token_ids", limit: MessageLimits.stopTokens)
        ignoresEnd = try reader.integer(8, "ignore_eos", fallback: UInt8(0)) != 0
        request.minimumTokens = try reader.minimumTokens(10, maximum: request.maximumTokens)
        request.cacheSalt = try reader.cacheSalt(11)
        request.sampling = try Sampling(decoding: reader)
    }
}

extension GenerateRequest {
    private static func prompt(_ reader: FieldReader) throws(WireError) -> Prompt {
        let ids: [UInt32] = try reader.array(3, "prompt token ids", limit: MessageLimits.promptTokens)
        let text = try reader.text(2, "prompt", limit: MessageLimits.promptBytes)
        let turns = try chat(reader)
        guard [!ids.isEmpty, text != nil, turns != nil].filter({ $0 }).count <= 1 else {
            throw WireError("prompt is given in more than one way: as text, as token ids or as a conversation")
        }
        if let turns { return .chat(turns) }
        return text.map { .text($0) } ?? .tokens(ids)
    }

    private static func chat(_ reader: FieldReader) throws(WireError) -> [ChatTurn]? {
        guard reader.slice(9) != nil else { return nil }
        let parts = try reader.strings(
            9, "messages", limit: 2 * MessageLimits.chatTurns, byteLimit: MessageLimits.promptBytes)
        guard parts.count.isMultiple(of: 2) else { throw WireError("messages end after a role") }
        var turns: [ChatTurn] = []
        for index in stride(from: 0, to: parts.count, by: 2) {
            guard ["system", "user", "assistant", "tool"].contains(parts[index]) else {
                throw WireError("messages[\(index / 2)] has role \"\(parts[index].prefix(32))\"")
            }
            turns.append(ChatTurn(role: parts[index], content: parts[index + 1]))
        }
        return turns
    }
}

/// A piece of a streamed completion (method generate).
public struct GenerateItem: Sendable, Equatable {
    /// Text that can be shown; may be empty while a character is incomplete.
    public var text: String
    /// The tokens behind it, all with the same number of alternatives.
    public var tokens: [Token]

    /// A piece.
    public init(text: String, tokens: [Token]) {
        self.text = text
        self.tokens = tokens
    }

    /// Metadata of the item frame.
    public func encoded() -> [UInt8] {
        var writer = FieldWriter()
        writer.put(1, text)
        writer.put(2, pairs: tokens)
        if tokens.contains(where: { !$0.top.isEmpty }) { writer.put(3, pairs: tokens.flatMap(\.top)) }
        return writer.bytes
    }

    /// Parses metadata.
    ///
    /// - Throws: `WireError` that names the field.
    public init(decoding bytes: [UInt8]) throws(WireError) {
        let reader = try FieldReader(bytes, known: 1...3)
        text = try reader.text(1, "text", limit: MessageLimits.promptBytes) ?? ""
        tokens = try reader.pairs(2, "tokens", limit: 4096) { Token(id: $0, logprob: $1) }
        let top = try reader.alternatives(3, limit: tokens.count * MessageLimits.topLogprobs)
        let count = tokens.isEmpty ? 0 : top.count / tokens.count
        guard count * tokens.count == top.count else {
            throw WireError("top logprobs are not as many for each token")
        }
        for index in tokens.indices { tokens[index].top = Array(top[index * count..<(index + 1) * count]) }
    }
}

/// What the gateway asks an attention instance to generate (method generateTokens).
public struct TokensRequest: Sendable, Equatable {
    /// The request. Tokens that another instance generated before it was lost are computed again and not sent again.
    public var request: Request
    /// `host:port` of the instance that computes the prompt; empty when this one does.
    public var prefill: String
    /// True to be sent a `TokensPart.sign` at the start, and once a second while no token comes.
    public var wantsSigns: Bool

    /// A message.
    public init(_ request: Request, prefill: String = "", wantsSigns: Bool = false) {
        self.request = request
        self.prefill = prefill
        self.wantsSigns = wantsSigns
    }

    /// Metadata of the request frame.
    public func encoded() -> [UInt8] {
        var writer = FieldWriter()
        request.encode(into: &writer)
        if !prefill.isEmpty { writer.put(5, prefill) }
        if wantsSigns { writer.put(9, UInt8(1)) }
        return writer.bytes
    }

    /// Parses metadata.
    ///
    /// - Throws: `WireError` that names the field.
    public init(decoding bytes: [UInt8]) throws(WireError) {
        let reader = try FieldReader(bytes, known: 1...9, 14...14, Sampling.tags)
        self.init(
            try Request(decoding: reader), prefill: try reader.text(5, "prefill", limit: MessageLimits.textBytes) ?? "",
            wantsSigns: try reader.integer(9, "signs", fallback: UInt8(0)) != 0)
    }
}
