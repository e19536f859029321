/// How much an attention instance holds, and how much of it is taken: what placement decides on. Counted in requests and
/// tokens, never in pages, whose size is the instance's own affair.
public struct Capacity: Sendable, Equatable {
    /// Requests it holds at once: recurrent slots.
    public var requests: Int
    /// Tokens of KV it holds, over all ranks that share its steps.
    public var tokens: Int
    /// Tokens of KV that one request may take of them.
    public var requestTokens: Int
    /// Requests whose memory is held by steps or transfers after they ended.
    public var quarantinedRequests: Int
    /// Tokens of KV held by steps or transfers after their requests ended.
    public var quarantinedTokens: Int

    /// A capacity.
    public init(
        requests: Int, tokens: Int, requestTokens: Int? = nil, quarantinedRequests: Int = 0, quarantinedTokens: Int = 0
    ) {
        self.requests = requests
        self.tokens = tokens
        self.requestTokens = min(tokens, requestTokens ?? tokens)
        self.quarantinedRequests = quarantinedRequests
        self.quarantinedTokens = quarantinedTokens
    }
}
