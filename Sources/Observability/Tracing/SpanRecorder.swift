import Synchronization

/// Keeps the latest spans of a service in a ring. Off until a request's trace asks for it or a window is open; then a
/// span costs a lock and a copy. Any thread may use it.
public final class SpanRecorder: Sendable {
    /// Which spans are wanted.
    public struct Query: Sendable, Equatable {
        /// Traces one query may name.
        public static let maximumTraces = 16
        /// Only spans of these traces; empty for all.
        public var traces: [TraceContext] = []
        /// Only spans that end at or after this.
        public var since = Int64.min
        /// Only spans that begin at or before this.
        public var until = Int64.max

        /// Everything.
        public init() {}

        func wants(_ span: Span) -> Bool {
            guard span.end >= since, span.start <= until else { return false }
            return traces.isEmpty || traces.contains { $0.high == span.trace.high && $0.low == span.trace.low }
        }
    }

    /// Spans a ring holds unless told otherwise: about 4 MB, which are touched only when they are used.
    public static let defaultCapacity = 32_768

    private struct Ring {
        var spans: [Span] = []
        var next = 0
        var recorded: UInt64 = 0
    }

    /// Spans kept at most.
    public let capacity: Int
    private let ring: Mutex<Ring>
    private let windows = Atomic<Int>(0)

    /// A recorder of the latest `capacity` spans, at least 1.
    public init(capacity: Int = SpanRecorder.defaultCapacity) {
        self.capacity = max(1, capacity)
        var ring = Ring()
        ring.spans.reserveCapacity(self.capacity)
        self.ring = Mutex(ring)
    }

    /// True when spans of this trace are to be recorded.
    public func records(_ trace: TraceContext) -> Bool { trace.isSampled || isOpen }

    /// True while a window is open, in which everything is recorded.
    public var isOpen: Bool { windows.load(ordering: .relaxed) > 0 }

    /// Opens a window; `closeWindow` must follow.
    public func openWindow() { windows.wrappingAdd(1, ordering: .relaxed) }

    /// Closes a window.
    public func closeWindow() { windows.wrappingSubtract(1, ordering: .relaxed) }

    /// Keeps a span; when the ring is full the oldest gives way.
    public func record(_ span: Span) {
        ring.withLock { ring in
            if ring.spans.count < capacity {
                ring.spans.append(span)
            } else {
                ring.spans[ring.next] = span
                ring.next = (ring.next + 1) % capacity
            }
            ring.recorded += 1
        }
    }

    /// Spans recorded so far, those among them that gave way.
    public var recordedCount: UInt64 { ring.withLock { $0.recorded } }

    /// The spans a query wants, in the order in which they ended.
    public func spans(_ query: Query = Query()) -> [Span] {
        ring.withLock { ring in
            (ring.spans[ring.next...] + ring.spans[..<ring.next]).filter(query.wants)
        }
    }
}
