/// How the next token is chosen. The defaults mean greedy.
///
/// The one description of it in all rooms; the sampler applies the fields in the order of `TokenSampler`, and a message
/// carries them as SPECIFICATION 7.1 says.
public struct Sampling: Sendable, Equatable {
    /// 0 is greedy: the highest logit, ties to the lowest id.
    public var temperature: Float = 0
    /// Keep the k likeliest; 0 keeps all.
    public var topK = 0
    /// Keep the smallest set of likeliest tokens whose probability reaches this.
    public var topP: Float = 1
    /// Drop tokens less likely than this times the likeliest.
    public var minP: Float = 0
    /// Divides positive and multiplies negative logits of tokens in prompt or output; 1 is off.
    public var repetitionPenalty: Float = 1
    /// Subtracted once from the logit of every token in the output.
    public var presencePenalty: Float = 0
    /// Subtracted per occurrence from the logit of every token in the output.
    public var frequencyPenalty: Float = 0
    /// Seed of the counter-based random numbers.
    public var seed: UInt64 = 0
    /// Added to the logits of single tokens before anything else; each token once, and ids beyond the vocabulary are
    /// ignored.
    public var logitBias: [TokenBias] = []

    /// Greedy.
    public init() {}

    /// True when a row's history matters.
    public var hasPenalties: Bool { repetitionPenalty != 1 || presencePenalty != 0 || frequencyPenalty != 0 }
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
