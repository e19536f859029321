import Observability

/// What a request brings besides what is to be completed.
public struct CallContext: Sendable {
    /// Longest time the client wants to wait; nil for as long as the gateway allows.
    public var timeoutMicroseconds: UInt64?
    /// The client's trace.
    public var trace = TraceContext.none
    /// The client's name for the request.
    public var name = ""

    /// A context that asks for nothing.
    public init() {}
}
