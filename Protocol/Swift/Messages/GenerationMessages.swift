/// What a client asks the gateway to complete: text or token ids (method generate).
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
    /// Tokens to generate at most.
    public var maxTokens: UInt32 = 16
    /// Sampling.
    public var sampling = SamplingOptions()
    /// Logprobs wanted per token besides its own; nil for none at all.
    public var logprobs: UInt8?
    /// Strings that end generation; not part of the output.
    public var stop: [String] = []
    /// Token ids that end generation, besides the model's own.
    public var stopTokenIDs: [UInt32] = []
    /// True to go on past the model's own end tokens.
    public var ignoresEnd = false
    /// Tokens before which no stop token is chosen and no stop string ends generation.
    public var minimumTokens: UInt32 = 0

    /// A request with the defaults.
    public init(prompt: Prompt) { self.prompt = prompt }

    /// Metadata of the request frame.
    public func encoded() -> [UInt8] {
        var writer = FieldWriter()
        writer.put(1, model)
        switch prompt {
        case .text(let text): writer.put(2, text)
        case .tokens(let ids): writer.put(3, array: ids)
        case .chat(let turns): writer.put(9, strings: turns.flatMap { [$0.role, $0.content] })
        }
        writer.put(4, maxTokens)
        if let logprobs { writer.put(5, logprobs) }
        if !stop.isEmpty { writer.put(6, strings: stop) }
        if !stopTokenIDs.isEmpty { writer.put(7, array: stopTokenIDs) }
        writer.put(8, UInt8(ignoresEnd ? 1 : 0))
        if minimumTokens > 0 { writer.put(0x8000 | 10, minimumTokens) }
        sampling.encode(into: &writer)
        return writer.bytes
    }

    /// Parses metadata; refuses what is out of range, naming the field.
    public init(decoding bytes: [UInt8]) throws(WireError) {
        let reader = try FieldReader(bytes, known: 1...40)
        model = try reader.text(1, "model", limit: MessageLimits.textBytes) ?? ""
        prompt = try Self.prompt(reader)
        maxTokens = try reader.integer(4, "max_tokens", fallback: 16)
        guard (1...MessageLimits.generatedTokens).contains(maxTokens) else {
            throw WireError("max_tokens must be from 1 to \(MessageLimits.generatedTokens), not \(maxTokens)")
        }
        logprobs = try decodeLogprobs(reader, 5)
        stop = try reader.strings(6, "stop", limit: MessageLimits.stopStrings, byteLimit: MessageLimits.stopBytes)
        stopTokenIDs = try reader.array(7, "stop_token_ids", limit: MessageLimits.stopTokens)
        ignoresEnd = try reader.integer(8, "ignore_eos", fallback: UInt8(0)) != 0
        minimumTokens = try decodeMinimumTokens(reader, 10, maximum: maxTokens)
        sampling = try SamplingOptions(decoding: reader)
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
        guard reader.data(9) != nil else { return nil }
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

private func decodeLogprobs(_ reader: FieldReader, _ tag: UInt16) throws(WireError) -> UInt8? {
    guard reader.data(tag) != nil else { return nil }
    let count: UInt8 = try reader.integer(tag, "logprobs")
    guard count <= MessageLimits.topLogprobs else {
        throw WireError("logprobs must be at most \(MessageLimits.topLogprobs), not \(count)")
    }
    return count
}

private func decodeMinimumTokens(
    _ reader: FieldReader, _ tag: UInt16, maximum: UInt32
) throws(WireError) -> UInt32 {
    let count: UInt32 = try reader.integer(tag, "min_tokens", fallback: 0)
    guard count <= maximum else {
        throw WireError("min_tokens must be at most max_tokens (\(maximum)), not \(count)")
    }
    return count
}

/// Why generation ended.
public enum FinishReason: UInt8, Sendable {
    /// An end token or a stop string.
    case stop = 1
    /// The token limit.
    case length = 2

    /// The word that OpenAI-style clients expect.
    public var name: String { self == .stop ? "stop" : "length" }
}

/// A piece of a streamed completion (method generate).
public struct GenerateItem: Sendable, Equatable {
    /// Text that can be shown; may be empty while a character is incomplete.
    public var text: String
    /// The tokens behind it, with their logprobs.
    public var tokens: [TokenLogprob]
    /// The likeliest alternatives of each token, `topCount` per token.
    public var top: [TokenLogprob]

    /// A piece.
    public init(text: String, tokens: [TokenLogprob], top: [TokenLogprob] = []) {
        self.text = text
        self.tokens = tokens
        self.top = top
    }

    /// Metadata of the item frame.
    public func encoded() -> [UInt8] {
        var writer = FieldWriter()
        writer.put(1, text)
        writer.put(2, tokens: tokens)
        if !top.isEmpty { writer.put(3, tokens: top) }
        return writer.bytes
    }

    /// Parses metadata.
    public init(decoding bytes: [UInt8]) throws(WireError) {
        let reader = try FieldReader(bytes, known: 1...3)
        text = try reader.text(1, "text", limit: MessageLimits.promptBytes) ?? ""
        tokens = try reader.tokens(2, "tokens", limit: 4096)
        top = try reader.tokens(3, "top logprobs", limit: 4096 * Int(MessageLimits.topLogprobs))
    }
}

/// The end of a streamed completion (methods generate and generateTokens).
public struct GenerateEnd: Sendable, Equatable {
    /// Why.
    public var reason: FinishReason
    /// Tokens of the prompt.
    public var promptTokens: UInt32
    /// Tokens generated.
    public var completionTokens: UInt32
    /// Tokens of the prompt whose state was there already and was not computed again.
    public var cachedTokens: UInt32

    /// An end.
    public init(reason: FinishReason, promptTokens: UInt32, completionTokens: UInt32, cachedTokens: UInt32 = 0) {
        self.reason = reason
        self.promptTokens = promptTokens
        self.completionTokens = completionTokens
        self.cachedTokens = cachedTokens
    }

    /// Metadata of the end frame.
    public func encoded() -> [UInt8] {
        var writer = FieldWriter()
        writer.put(1, reason.rawValue)
        writer.put(2, promptTokens)
        writer.put(3, completionTokens)
        if cachedTokens > 0 { writer.put(4, cachedTokens) }
        return writer.bytes
    }

    /// Parses metadata.
    public init(decoding bytes: [UInt8]) throws(WireError) {
        let reader = try FieldReader(bytes, known: 1...4)
        guard let reason = FinishReason(rawValue: try reader.integer(1, "finish_reason")) else {
            throw WireError("finish_reason is unknown")
        }
        self.reason = reason
        promptTokens = try reader.integer(2, "prompt_tokens")
        completionTokens = try reader.integer(3, "completion_tokens")
        cachedTokens = try reader.integer(4, "cached_tokens", fallback: 0)
    }
}

/// What the gateway asks an attention instance to generate (method generateTokens).
public struct TokensRequest: Sendable, Equatable {
    /// Prompt ids.
    public var prompt: [UInt32]
    /// Tokens to generate at most.
    public var maxTokens: UInt32
    /// Sampling.
    public var sampling: SamplingOptions
    /// Logprobs wanted per token besides its own.
    public var topLogprobs: UInt8
    /// Token ids that end generation.
    public var stopTokenIDs: [UInt32]
    /// `host:port` of the instance that computes the prompt; empty when this one does.
    public var prefill = ""
    /// Tokens that another instance generated before it was lost. They are computed again, not sent again, and count
    /// towards `maxTokens`.
    public var replay: [UInt32] = []
    /// Higher goes first.
    public var priority: UInt8 = 0
    /// Tokens before which no stop token is chosen.
    public var minimumTokens: UInt32
    /// True to be sent a `TokensPart.sign` at the start, and once a second while no token comes.
    public var wantsSigns = false

    /// A request.
    public init(
        prompt: [UInt32], maxTokens: UInt32, sampling: SamplingOptions, topLogprobs: UInt8, stopTokenIDs: [UInt32],
        minimumTokens: UInt32 = 0
    ) {
        self.minimumTokens = minimumTokens
        self.prompt = prompt
        self.maxTokens = maxTokens
        self.sampling = sampling
        self.topLogprobs = topLogprobs
        self.stopTokenIDs = stopTokenIDs
    }

    /// Metadata of the request frame.
    public func encoded() -> [UInt8] {
        var writer = FieldWriter()
        writer.put(1, array: prompt)
        writer.put(2, maxTokens)
        writer.put(3, topLogprobs)
        writer.put(4, array: stopTokenIDs)
        if !prefill.isEmpty { writer.put(5, prefill) }
        if !replay.isEmpty { writer.put(6, array: replay) }
        writer.put(7, priority)
        if minimumTokens > 0 { writer.put(0x8000 | 8, minimumTokens) }
        if wantsSigns { writer.put(9, UInt8(1)) }
        sampling.encode(into: &writer)
        return writer.bytes
    }

    /// Parses metadata.
    public init(decoding bytes: [UInt8]) throws(WireError) {
        let reader = try FieldReader(bytes, known: 1...40)
        prompt = try reader.array(1, "prompt", limit: MessageLimits.promptTokens)
        guard !prompt.isEmpty else { throw WireError("prompt is empty") }
        maxTokens = try reader.integer(2, "max_tokens")
        guard (1...MessageLimits.generatedTokens).contains(maxTokens) else {
            throw WireError("max_tokens must be from 1 to \(MessageLimits.generatedTokens), not \(maxTokens)")
        }
        topLogprobs = try reader.integer(3, "logprobs", fallback: 0)
        guard topLogprobs <= MessageLimits.topLogprobs else {
            throw WireError("logprobs must be at most \(MessageLimits.topLogprobs), not \(topLogprobs)")
        }
        stopTokenIDs = try reader.array(4, "stop_token_ids", limit: 2 * MessageLimits.stopTokens)
        prefill = try reader.text(5, "prefill", limit: MessageLimits.textBytes) ?? ""
        replay = try reader.array(6, "replay", limit: MessageLimits.promptTokens)
        guard replay.count < maxTokens else {
            throw WireError("replay has \(replay.count) tokens, max_tokens is \(maxTokens)")
        }
        priority = try reader.integer(7, "priority", fallback: 0)
        minimumTokens = try decodeMinimumTokens(reader, 8, maximum: maxTokens)
        wantsSigns = try reader.integer(9, "signs", fallback: UInt8(0)) != 0
        sampling = try SamplingOptions(decoding: reader)
    }
}

/// One generated token (method generateTokens, and each row of a sample reply).
public struct TokensItem: Sendable, Equatable {
    /// The token.
    public var token: TokenLogprob
    /// The likeliest tokens at this position.
    public var top: [TokenLogprob]

    /// A token.
    public init(token: TokenLogprob, top: [TokenLogprob]) {
        self.token = token
        self.top = top
    }

    /// Metadata of the item frame.
    public func encoded() -> [UInt8] {
        var writer = FieldWriter()
        writer.put(1, tokens: [token])
        if !top.isEmpty { writer.put(2, tokens: top) }
        return writer.bytes
    }

    /// Parses metadata.
    public init(decoding bytes: [UInt8]) throws(WireError) {
        try self.init(FieldReader(bytes, known: 1...2))
    }

    init(_ reader: FieldReader) throws(WireError) {
        guard let token = try reader.tokens(1, "token", limit: 1).first else { throw WireError("token is missing") }
        self.token = token
        top = try reader.tokens(2, "top logprobs", limit: Int(MessageLimits.topLogprobs))
    }
}
