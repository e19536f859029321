import Observability

/// What a request brings besides what is to be completed.
public struct CallContext: Sendable {
    /// Longest time the client wants to wait; nil for as long as the gateway allows.
    public var timeoutMicroseconds: UInt64?
    /// The client's trace.
    public var trace = TraceContext.none
    /// The client's name for the request.
    public var name = ""
    /// Higher goes first; 128 is what requests have that ask for nothing.
    public var priority = CallContext.plainPriority

    /// Priority of a request that asks for none.
    public static let plainPriority: UInt8 = 128

    /// A context that asks for nothing.
    public init() {}
}
