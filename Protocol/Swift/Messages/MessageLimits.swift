/// Limits that every message keeps (SPECIFICATION section 9).
public enum MessageLimits {
    /// Tokens of a prompt.
    public static let promptTokens = 262_144
    /// Bytes of a prompt's text.
    public static let promptBytes = 1 << 20
    /// Turns of a conversation.
    public static let chatTurns = 1024
    /// Tokens one request may generate.
    public static let generatedTokens = 262_144
    /// Tokens of prompt and answer of a request with penalties: its history travels in one frame.
    public static let penalisedTokens = 249_984
    /// Logprobs per token besides its own.
    public static let topLogprobs = 20
    /// Stop strings.
    public static let stopStrings = 16
    /// Bytes of one stop string.
    public static let stopBytes = 256
    /// Bytes of a cache_salt.
    public static let saltBytes = 256
    /// Stop token ids of a client's request; what an instance is sent has the model's own beside them, as many at most.
    public static let stopTokens = 64
    /// Tokens with a bias.
    public static let biasedTokens = 1024
    /// Bytes of a name or sentence.
    public static let textBytes = 1024
}
