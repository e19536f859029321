import Serving

// The one encoding of what all rooms share (SPECIFICATION 7.1 to 7.3). Fields that say what their absence means are not
// written.

extension Sampling {
    /// The tags that they take in every message.
    static let tags: ClosedRange<UInt16> = 32...40

    func encode(into writer: inout FieldWriter) {
        let plain = Sampling()
        if temperature != plain.temperature { writer.put(32, temperature) }
        if topK != plain.topK { writer.put(33, UInt32(clamping: topK)) }
        if topP != plain.topP { writer.put(34, topP) }
        if minP != plain.minP { writer.put(35, minP) }
        if repetitionPenalty != plain.repetitionPenalty { writer.put(36, repetitionPenalty) }
        if presencePenalty != plain.presencePenalty { writer.put(37, presencePenalty) }
        if frequencyPenalty != plain.frequencyPenalty { writer.put(38, frequencyPenalty) }
        if seed != plain.seed { writer.put(39, seed) }
        // A receiver that does not know biases must refuse the message: without them it would choose other tokens.
        if !logitBias.isEmpty { writer.put(0x8000 | 40, pairs: logitBias.lazy.map { ($0.id, $0.bias) }) }
    }

    init(decoding reader: FieldReader) throws(WireError) {
        self.init()
        temperature = try reader.number(32, "temperature", in: 0...100, fallback: temperature)
        topK = try reader.count(33, "top_k", in: 0...Int(UInt32.max), fallback: topK)
        topP = try reader.number(34, "top_p", in: 0...1, fallback: topP)
        minP = try reader.number(35, "min_p", in: 0...1, fallback: minP)
        repetitionPenalty = try reader.number(36, "repetition_penalty", in: 0.01...100, fallback: repetitionPenalty)
        presencePenalty = try reader.number(37, "presence_penalty", in: -100...100, fallback: presencePenalty)
        frequencyPenalty = try reader.number(38, "frequency_penalty", in: -100...100, fallback: frequencyPenalty)
        seed = try reader.integer(39, "seed", fallback: seed)
        logitBias = try reader.pairs(40, "logit_bias", limit: MessageLimits.biasedTokens, TokenBias.init(id:bias:))
        if let wrong = logitBias.first(where: { !TokenBias.range.contains($0.bias) }) {
            throw WireError("logit_bias must be from -100 to 100, not \(wrong.bias)")
        }
        var ids = Set<UInt32>()
        if let twice = logitBias.first(where: { !ids.insert($0.id).inserted }) {
            throw WireError("logit_bias names token \(twice.id) twice")
        }
    }
}

extension Request {
    /// Everything but its number, its stop texts and its part, which are not for instances.
    func encode(into writer: inout FieldWriter) {
        writer.put(1, array: prompt)
        writer.put(2, UInt32(clamping: maximumTokens))
        if let topLogprobs { writer.put(3, UInt8(clamping: topLogprobs)) }
        if !stopTokens.isEmpty { writer.put(4, array: stopTokens) }
        if !generated.isEmpty { writer.put(6, array: generated) }
        if priority != 0 { writer.put(7, UInt8(clamping: priority)) }
        if minimumTokens > 0 { writer.put(0x8000 | 8, UInt32(clamping: minimumTokens)) }
        if !cacheSalt.isEmpty { writer.put(0x8000 | 14, cacheSalt) }
        sampling.encode(into: &writer)
    }

    /// - limits: of max_tokens.
    init(
        decoding reader: FieldReader, _ limits: ClosedRange<Int> = 1...MessageLimits.generatedTokens
    ) throws(WireError) {
        self.init(
            prompt: try reader.array(1, "prompt", limit: MessageLimits.promptTokens),
            generated: try reader.array(6, "generated", limit: MessageLimits.promptTokens),
            maximumTokens: try reader.count(2, "max_tokens", in: limits))
        guard !prompt.isEmpty else { throw WireError("prompt is empty") }
        guard generated.isEmpty || generatedCount < maximumTokens else {
            throw WireError("generated has \(generatedCount) tokens, max_tokens is \(maximumTokens)")
        }
        topLogprobs = try reader.logprobs(3)
        stopTokens = try reader.array(4, "stop_token_ids", limit: 2 * MessageLimits.stopTokens)
        priority = Int(try reader.integer(7, "priority", fallback: UInt8(0)))
        minimumTokens = try reader.minimumTokens(8, maximum: maximumTokens)
        cacheSalt = try reader.cacheSalt(14)
        sampling = try Sampling(decoding: reader)
    }
}

extension FieldReader {
    /// The alternatives that are wanted of each token; nil when absent.
    func logprobs(_ tag: UInt16) throws(WireError) -> Int? {
        guard slice(tag) != nil else { return nil }
        let count = Int(try integer(tag, "logprobs") as UInt8)
        guard count <= MessageLimits.topLogprobs else {
            throw WireError("logprobs must be at most \(MessageLimits.topLogprobs), not \(count)")
        }
        return count
    }

    func cacheSalt(_ tag: UInt16) throws(WireError) -> String {
        try text(tag, "cache_salt", limit: MessageLimits.saltBytes) ?? ""
    }

    func minimumTokens(_ tag: UInt16, maximum: Int) throws(WireError) -> Int {
        let count = try count(tag, "min_tokens", in: 0...Int(UInt32.max), fallback: 0)
        guard count <= maximum else {
            throw WireError("min_tokens must be at most max_tokens (\(maximum)), not \(count)")
        }
        return count
    }
}

extension SampleRow {
    func encode(into writer: inout FieldWriter) {
        if position > 0 { writer.put(1, position) }
        if topLogprobs > 0 { writer.put(2, UInt8(clamping: topLogprobs)) }
        if !history.isEmpty { writer.put(3, array: history) }
        if promptCount > 0 { writer.put(4, UInt32(clamping: promptCount)) }
        if !banned.isEmpty { writer.put(0x8000 | 5, array: banned) }
        sampling.encode(into: &writer)
    }

    init(decoding reader: FieldReader) throws(WireError) {
        self.init(sampling: try Sampling(decoding: reader), position: try reader.integer(1, "position", fallback: 0))
        topLogprobs = try reader.logprobs(2) ?? 0
        history = try reader.array(3, "history", limit: MessageLimits.promptTokens)
        promptCount = try reader.count(4, "prompt count", in: 0...history.count, fallback: 0)
        banned = try reader.array(5, "banned", limit: 2 * MessageLimits.stopTokens)
    }
}

extension Token {
    /// Metadata of the item frame (method generateTokens).
    public func encoded() -> [UInt8] {
        var writer = FieldWriter()
        encode(into: &writer)
        return writer.bytes
    }

    /// Parses metadata.
    ///
    /// - Throws: `WireError` that names the field.
    public init(decoding bytes: [UInt8]) throws(WireError) {
        try self.init(decoding: FieldReader(bytes, known: 1...2))
    }

    func encode(into writer: inout FieldWriter) {
        writer.put(1, pairs: CollectionOfOne(self))
        if !top.isEmpty { writer.put(2, pairs: top) }
    }

    init(decoding reader: FieldReader) throws(WireError) {
        let tokens = try reader.pairs(1, "token", limit: 1) { Token(id: $0, logprob: $1) }
        guard let token = tokens.first else { throw WireError("token is missing") }
        self = token
        top = try reader.alternatives(2, limit: MessageLimits.topLogprobs)
    }
}

extension FieldWriter {
    mutating func put(_ tag: UInt16, pairs alternatives: some Collection<Token.Alternative>) {
        put(tag, pairs: alternatives.lazy.map { ($0.id, $0.logprob) })
    }

    mutating func put(_ tag: UInt16, pairs tokens: some Collection<Token>) {
        put(tag, pairs: tokens.lazy.map { ($0.id, $0.logprob) })
    }
}

extension FieldReader {
    func alternatives(_ tag: UInt16, limit: Int) throws(WireError) -> [Token.Alternative] {
        try pairs(tag, "top logprobs", limit: limit, Token.Alternative.init(id:logprob:))
    }
}

extension End {
    /// Metadata of the end frame (methods generate and generateTokens).
    public func encoded() -> [UInt8] {
        var writer = FieldWriter()
        writer.put(1, reason.rawValue)
        writer.put(2, UInt32(clamping: promptTokens))
        writer.put(3, UInt32(clamping: completionTokens))
        if cachedTokens > 0 { writer.put(4, UInt32(clamping: cachedTokens)) }
        return writer.bytes
    }

    /// Parses metadata.
    ///
    /// - Throws: `WireError` that names the field.
    public init(decoding bytes: [UInt8]) throws(WireError) {
        let reader = try FieldReader(bytes, known: 1...4)
        guard let reason = Reason(rawValue: try reader.integer(1, "finish_reason")) else {
            throw WireError("finish_reason is unknown")
        }
        let any = 0...Int(UInt32.max)
        self.init(
            reason: reason, promptTokens: try reader.count(2, "prompt_tokens", in: any),
            completionTokens: try reader.count(3, "completion_tokens", in: any),
            cachedTokens: try reader.count(4, "cached_tokens", in: any, fallback: 0))
    }
}

extension Capacity {
    /// No instance holds more of anything, so that sums stay numbers.
    private static let largest: UInt64 = 1 << 40

    var words: [UInt64] {
        [requests, tokens, requestTokens, quarantinedRequests, quarantinedTokens].map { UInt64(clamping: $0) }
    }

    init?(_ words: [UInt64]) throws(WireError) {
        guard !words.isEmpty else { return nil }
        guard words.count == 5, words.allSatisfy({ $0 <= Self.largest }) else {
            throw WireError("capacity is not five numbers up to \(Self.largest)")
        }
        self.init(
            requests: Int(words[0]), tokens: Int(words[1]), requestTokens: Int(words[2]),
            quarantinedRequests: Int(words[3]), quarantinedTokens: Int(words[4]))
    }
}
