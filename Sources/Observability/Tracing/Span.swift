/// What a span is about. The raw value is the name that is shown.
public enum SpanName: String, Sendable, CaseIterable, Codable {
    /// An HTTP request at the gateway, from its head to the end of its answer.
    case request
    /// A completion, from its start to its end: one choice of a request at the gateway, one call at an attention instance.
    case completion
    /// Text becomes token ids.
    case tokenizing
    /// The completions of an HTTP request are under way.
    case answering
    /// Waiting for a place: at the gateway for an instance, at an instance for memory.
    case queued
    /// Waiting for a connection to the instance.
    case connecting
    /// The prompt is computed; at the gateway, until its first token.
    case prefill
    /// State comes from the instance that computes the prompt.
    case receiving = "receiving state"
    /// State goes to the instance that decodes.
    case handingOff = "handing off state"
    /// Tokens are computed one after the other.
    case decode
    /// Tokens go to the client.
    case streaming
    /// A step of the layer loop.
    case step
    /// Attention and what else an attention instance computes of a layer.
    case attention
    /// The call for a layer's experts, as its caller sees it.
    case experts
    /// The call for the next tokens, as its caller sees it.
    case sampler
    /// A call as the service that answers sees it.
    case call
    /// A call is read and checked.
    case read
    /// A call is computed.
    case compute
    /// An answer is written.
    case reply
}

/// Something that took time in a service. Times are nanoseconds of the host's monotonic clock. A plain value without
/// references, so that recording one copies bytes and no more.
public struct Span: Sendable, Equatable {
    /// What took time.
    public var name: SpanName
    /// The trace it belongs to.
    public var trace: TraceContext
    /// For a step: the trace under which the layers and calls of the step are recorded, that of one of its requests.
    public var lead = TraceContext.none
    /// When it began.
    public var start: Int64
    /// When it ended.
    public var end: Int64
    /// The completion or call within the service; 0 for what belongs to no single one.
    public var request: UInt64 = 0
    /// The layer, or -1.
    public var layer: Int32 = -1
    /// Number of the step within its instance, or 0.
    public var step: Int64 = 0
    /// Rows or tokens, or -1.
    public var rows: Int32 = -1
    /// Time on the simulated device, 0 when it is not known.
    public var simulatedPicoseconds: UInt64 = 0

    /// A span of its name, trace and times.
    public init(_ name: SpanName, _ trace: TraceContext, start: Int64, end: Int64) {
        self.name = name
        self.trace = trace
        self.start = start
        self.end = end
    }
}
