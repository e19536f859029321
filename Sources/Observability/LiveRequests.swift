import Synchronization

/// A request that is being served: where it is and since when. Times are nanoseconds of the host's monotonic clock.
public struct LiveRequest: Sendable, Equatable {
    /// Number within the service.
    public let number: UInt64
    /// The client's name for it, or nothing.
    public let name: String
    /// Its trace.
    public let trace: TraceContext
    /// Tokens of its prompt.
    public internal(set) var promptTokens: Int
    /// Tokens it has got.
    public internal(set) var tokens = 0
    /// What is being done for it.
    public internal(set) var phase: SpanName
    /// When that began.
    public internal(set) var phaseStarted: Int64
    /// When it came.
    public let started: Int64
    /// When it last got a token, or when it came.
    public internal(set) var lastProgress: Int64
    /// The instance that works on it, or nothing.
    public internal(set) var place = ""
    /// What was done before, and for how long.
    public internal(set) var past: [Phase] = []

    /// A phase that is over.
    public struct Phase: Sendable, Equatable {
        /// What was done.
        public let name: SpanName
        /// For how long.
        public let nanoseconds: Int64
    }

    /// Nanoseconds spent in a phase altogether, the present one aside.
    public func time(in phase: SpanName) -> Int64 {
        past.reduce(0) { $0 + ($1.name == phase ? $1.nanoseconds : 0) }
    }
}

/// The requests a service is at work on, by phase, for whoever looks for one that is stuck; each phase leaves a span
/// when the request's trace is recorded. Any thread may use it. It is as large as the service's own limits on requests
/// allow.
public final class LiveRequests: Sendable {
    /// Phases remembered of one request; later ones are not.
    static let maximumPhases = 32

    /// It never leaves the lock. A class, so that a change costs no allocation.
    private final class Entry {
        var request: LiveRequest

        init(_ request: LiveRequest) { self.request = request }
    }

    private struct State {
        var entries: [UInt64: Entry] = [:]
        var next: UInt64 = 1
    }

    private let recorder: SpanRecorder
    private let state = Mutex(State())

    /// No requests yet; spans go to `recorder`.
    public init(recorder: SpanRecorder) { self.recorder = recorder }

    /// How many there are.
    public var count: Int { state.withLock { $0.entries.count } }

    /// A request has come; returns its number. `end` must follow.
    public func begin(
        _ phase: SpanName, trace: TraceContext, name: String = "", promptTokens: Int = 0, now: Int64 = Stopwatch.now
    ) -> UInt64 {
        state.withLock { state in
            let number = state.next
            state.next += 1
            state.entries[number] = Entry(
                LiveRequest(
                    number: number, name: name, trace: trace, promptTokens: promptTokens, phase: phase,
                    phaseStarted: now, started: now, lastProgress: now))
            return number
        }
    }

    /// The request goes on to a phase, at an instance.
    public func enter(
        _ phase: SpanName, _ number: UInt64, place: String? = nil, promptTokens: Int? = nil, now: Int64 = Stopwatch.now
    ) {
        let span = state.withLock { state -> Span? in
            guard let entry = state.entries[number] else { return nil }
            if let place { entry.request.place = place }
            if let promptTokens { entry.request.promptTokens = promptTokens }
            guard entry.request.phase != phase else { return nil }
            let span = Self.close(&entry.request, now)
            entry.request.phase = phase
            return span
        }
        if let span { record(span) }
    }

    /// The request got a token.
    public func token(_ number: UInt64, now: Int64 = Stopwatch.now) {
        state.withLock { state in
            guard let entry = state.entries[number] else { return }
            entry.request.tokens += 1
            entry.request.lastProgress = now
        }
    }

    /// The request is over; returns what it has come to. `as` names the span of all its phases together.
    @discardableResult public func end(
        _ number: UInt64, as name: SpanName = .completion, now: Int64 = Stopwatch.now
    ) -> LiveRequest? {
        guard var request = state.withLock({ $0.entries.removeValue(forKey: number)?.request }) else { return nil }
        let last = Self.close(&request, now)
        guard recorder.records(request.trace) else { return request }
        recorder.record(last)
        var whole = Span(name, request.trace, start: request.started, end: now)
        (whole.request, whole.rows) = (number, Int32(clamping: request.tokens))
        recorder.record(whole)
        return request
    }

    /// Those that have been longest in their phase, `limit` at most, and how many there are.
    public func oldest(limit: Int) -> (requests: [LiveRequest], count: Int) {
        let all = state.withLock { $0.entries.values.map(\.request) }
        let sorted = all.sorted { ($0.phaseStarted, $0.number) < ($1.phaseStarted, $1.number) }
        return (Array(sorted.prefix(max(0, limit))), all.count)
    }

    private static func close(_ request: inout LiveRequest, _ now: Int64) -> Span {
        var span = Span(request.phase, request.trace, start: request.phaseStarted, end: now)
        span.request = request.number
        if request.past.count < maximumPhases {
            request.past.append(.init(name: request.phase, nanoseconds: now - request.phaseStarted))
        }
        request.phaseStarted = now
        return span
    }

    private func record(_ span: Span) {
        if recorder.records(span.trace) { recorder.record(span) }
    }
}

/// What a service tells of itself: its metrics, its spans, and the requests it is at work on.
public final class Telemetry: Sendable {
    /// Metrics that are kept while the service runs.
    public let metrics: MetricsRegistry
    /// Spans.
    public let spans: SpanRecorder
    /// Requests at work.
    public let requests: LiveRequests

    /// Nothing yet.
    public init(spanCapacity: Int = SpanRecorder.defaultCapacity) {
        metrics = MetricsRegistry()
        spans = SpanRecorder(capacity: spanCapacity)
        requests = LiveRequests(recorder: spans)
    }
}
