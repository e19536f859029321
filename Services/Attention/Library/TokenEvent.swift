import RPC
import WireProtocol

/// What the engine tells the call that waits for a request's tokens.
public enum TokenEvent: Sendable {
    /// One more token.
    case token(TokensItem)
    /// The request is over.
    case finished(GenerateEnd)
    /// The request failed.
    case failed(RPCError)
}
