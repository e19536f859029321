/// How the next token is chosen. The defaults mean greedy.
public struct SamplingOptions: Sendable, Equatable {
    /// 0 is greedy.
    public var temperature: Float = 0
    /// Keep the k likeliest; 0 keeps all.
    public var topK: UInt32 = 0
    /// Keep the smallest set whose probability reaches this.
    public var topP: Float = 1
    /// Drop tokens less likely than this times the likeliest.
    public var minP: Float = 0
    /// Divides (positive) or multiplies (negative) logits of tokens seen in prompt or output; 1 is off.
    public var repetitionPenalty: Float = 1
    /// Subtracted once from logits of tokens in the output.
    public var presencePenalty: Float = 0
    /// Subtracted per occurrence from logits of tokens in the output.
    public var frequencyPenalty: Float = 0
    /// Seed of the counter-based random numbers.
    public var seed: UInt64 = 0
    /// Added to the logits of single tokens before anything else; each token once.
    public var logitBias: [TokenBias] = []

    /// Greedy sampling.
    public init() {}

    /// True when the history of a row matters.
    public var hasPenalties: Bool { repetitionPenalty != 1 || presencePenalty != 0 || frequencyPenalty != 0 }

    /// First tag of the nine that the options take in a message.
    static let firstTag: UInt16 = 32
    /// A receiver that does not know biases must refuse the message: without them it would choose other tokens.
    private static let biasTag: UInt16 = 0x8000 | 40

    func encode(into writer: inout FieldWriter) {
        writer.put(Self.firstTag, temperature)
        writer.put(Self.firstTag + 1, topK)
        writer.put(Self.firstTag + 2, topP)
        writer.put(Self.firstTag + 3, minP)
        writer.put(Self.firstTag + 4, repetitionPenalty)
        writer.put(Self.firstTag + 5, presencePenalty)
        writer.put(Self.firstTag + 6, frequencyPenalty)
        writer.put(Self.firstTag + 7, seed)
        if !logitBias.isEmpty { writer.put(Self.biasTag, biases: logitBias) }
    }

    init(decoding reader: FieldReader) throws(WireError) {
        let tag = Self.firstTag
        temperature = try reader.number(tag, "temperature", in: 0...100, fallback: 0)
        topK = try reader.integer(tag + 1, "top_k", fallback: 0)
        topP = try reader.number(tag + 2, "top_p", in: 0...1, fallback: 1)
        minP = try reader.number(tag + 3, "min_p", in: 0...1, fallback: 0)
        repetitionPenalty = try reader.number(tag + 4, "repetition_penalty", in: 0.01...100, fallback: 1)
        presencePenalty = try reader.number(tag + 5, "presence_penalty", in: -100...100, fallback: 0)
        frequencyPenalty = try reader.number(tag + 6, "frequency_penalty", in: -100...100, fallback: 0)
        seed = try reader.integer(tag + 7, "seed", fallback: 0)
        logitBias = try reader.biases(tag + 8, "logit_bias", limit: MessageLimits.biasedTokens)
    }
}

/// What is added to the logit of one token.
public struct TokenBias: Sendable, Equatable {
    /// Token id.
    public var id: UInt32
    /// Within `range`.
    public var bias: Float

    /// What a bias may be.
    public static let range: ClosedRange<Float> = -100...100

    /// A token with its bias.
    public init(id: UInt32, bias: Float) {
        self.id = id
        self.bias = bias
    }
}

/// A token with the logarithm of its probability under the model.
public struct TokenLogprob: Sendable, Equatable {
    /// Token id.
    public var id: UInt32
    /// Natural logarithm of the probability, before temperature and penalties.
    public var logprob: Float

    /// A token with its logprob.
    public init(id: UInt32, logprob: Float) {
        self.id = id
        self.logprob = logprob
    }
}

/// Limits that every message keeps (SPECIFICATION section 9).
public enum MessageLimits {
    /// Tokens of a prompt.
    public static let promptTokens = 262_144
    /// Bytes of a prompt's text.
    public static let promptBytes = 1 << 20
    /// Turns of a conversation.
    public static let chatTurns = 1024
    /// Tokens one request may generate.
    public static let generatedTokens: UInt32 = 262_144
    /// Tokens of prompt and answer of a request with penalties: its history travels in one frame.
    public static let penalisedTokens = 249_984
    /// Logprobs per token besides its own.
    public static let topLogprobs: UInt8 = 20
    /// Stop strings.
    public static let stopStrings = 16
    /// Bytes of one stop string.
    public static let stopBytes = 256
    /// Stop token ids.
    public static let stopTokens = 64
    /// Tokens with a bias.
    public static let biasedTokens = 1024
    /// Bytes of a name or sentence.
    public static let textBytes = 1024
}

extension FieldWriter {
    mutating func put(_ tag: UInt16, tokens: [TokenLogprob]) {
        put(tag, array: tokens.flatMap { [$0.id, $0.logprob.bitPattern] })
    }

    mutating func put(_ tag: UInt16, biases: [TokenBias]) {
        put(tag, array: biases.flatMap { [$0.id, $0.bias.bitPattern] })
    }
}

extension FieldReader {
    func tokens(_ tag: UInt16, _ name: String, limit: Int) throws(WireError) -> [TokenLogprob] {
        let words: [UInt32] = try array(tag, name, limit: 2 * limit)
        guard words.count % 2 == 0 else { throw WireError("\(name) ends inside a pair") }
        return stride(from: 0, to: words.count, by: 2).map {
            TokenLogprob(id: words[$0], logprob: Float(bitPattern: words[$0 + 1]))
        }
    }

    func biases(_ tag: UInt16, _ name: String, limit: Int) throws(WireError) -> [TokenBias] {
        let words: [UInt32] = try array(tag, name, limit: 2 * limit)
        return try TokenBias.list(words[...], name)
    }
}

extension TokenBias {
    /// Biases from pairs of an id and the bits of an fp32; each in range, each id once.
    static func list(_ words: ArraySlice<UInt32>, _ name: String) throws(WireError) -> [TokenBias] {
        guard words.count.isMultiple(of: 2) else { throw WireError("\(name) ends inside a pair") }
        var biases: [TokenBias] = []
        var ids = Set<UInt32>()
        for index in stride(from: words.startIndex, to: words.endIndex, by: 2) {
            let bias = TokenBias(id: words[index], bias: Float(bitPattern: words[index + 1]))
            guard range.contains(bias.bias) else {
                throw WireError("\(name) must be from \(range.lowerBound) to \(range.upperBound), not \(bias.bias)")
            }
            guard ids.insert(bias.id).inserted else { throw WireError("\(name) names token \(bias.id) twice") }
            biases.append(bias)
        }
        return biases
    }
}
