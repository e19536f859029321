/// One token of an answer and what the model thought of it.
public struct Token: Sendable, Equatable {
    /// A token with the logarithm of its probability.
    public struct Alternative: Sendable, Equatable {
        /// Token id.
        public var id: UInt32
        /// Natural logarithm of the probability, before biases, penalties and temperature.
        public var logprob: Float

        /// A token with its logprob.
        public init(id: UInt32, logprob: Float) {
            self.id = id
            self.logprob = logprob
        }
    }

    /// Token id.
    public var id: UInt32
    /// Natural logarithm of its probability, before biases, penalties and temperature.
    public var logprob: Float
    /// The likeliest tokens at its position, best first, ties to the lower id; as many as were asked for.
    public var top: [Alternative]

    /// A token.
    public init(id: UInt32, logprob: Float, top: [Alternative] = []) {
        self.id = id
        self.logprob = logprob
        self.top = top
    }
}

/// How a completion ended.
public struct End: Sendable, Equatable {
    /// Why generation ended.
    public enum Reason: UInt8, Sendable {
        /// A stop token or a stop text.
        case stop = 1
        /// The token limit.
        case length = 2

        /// The word that OpenAI-style clients expect.
        public var name: String { self == .stop ? "stop" : "length" }
    }

    /// Why.
    public var reason: Reason
    /// Tokens of the prompt.
    public var promptTokens: Int
    /// Tokens generated.
    public var completionTokens: Int
    /// Tokens of the prompt whose state was there already and was not computed again.
    public var cachedTokens: Int

    /// An end.
    public init(reason: Reason, promptTokens: Int, completionTokens: Int, cachedTokens: Int = 0) {
        self.reason = reason
        self.promptTokens = promptTokens
        self.completionTokens = completionTokens
        self.cachedTokens = cachedTokens
    }
}
