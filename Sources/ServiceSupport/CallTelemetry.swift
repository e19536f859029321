import Observability
import Synchronization

/// Measures the calls that experts and sampler answer: a histogram always, spans and a log line for those whose trace is
/// recorded.
public final class CallTelemetry: Sendable {
    private struct Recorded {
        var logger: Logger?
        var count: UInt64 = 0
    }

    /// One call as it is answered. Nanoseconds of the monotonic clock.
    public struct Timing: Sendable {
        fileprivate let trace: TraceContext
        fileprivate let started = Stopwatch.now
        fileprivate var readEnd: Int64 = 0
        fileprivate var computeEnd: Int64 = 0

        fileprivate init(_ trace: TraceContext) { self.trace = trace }

        /// The call has been read and checked.
        public mutating func read() { readEnd = Stopwatch.now }

        /// The answer has been computed.
        public mutating func computed() { computeEnd = Stopwatch.now }
    }

    /// Where calls whose trace is recorded are logged, for whoever looks for a fault; nil for nowhere.
    public var logger: Logger? {
        get { recorded.withLock { $0.logger } }
        set { recorded.withLock { $0.logger = newValue } }
    }

    private let spans: SpanRecorder
    private let seconds: Histogram
    /// Touched by calls whose trace is recorded, which are few.
    private let recorded = Mutex(Recorded())

    /// Telemetry of a service's calls.
    public init(_ telemetry: Telemetry, service: String) {
        spans = telemetry.spans
        seconds = telemetry.metrics.histogram(
            "ironling_\(service)_call_seconds", help: "Time of a call, from its arrival to its answer.",
            bounds: Histogram.exponentialBounds(start: 0.00002, factor: 2, count: 18))
    }

    /// A call has come.
    public func begin(_ trace: TraceContext) -> Timing { Timing(trace) }

    /// A call's answer is written.
    public func end(_ timing: Timing, layer: Int = -1, rows: Int, simulatedPicoseconds: UInt64 = 0) {
        let now = Stopwatch.now
        seconds.observe(Double(now - timing.started) / 1e9)
        guard spans.records(timing.trace) else { return }
        let (logger, count) = recorded.withLock { recorded in
            recorded.count += 1
            return (recorded.logger, recorded.count)
        }
        func record(_ name: SpanName, _ start: Int64, _ end: Int64) {
            var span = Span(name, timing.trace, start: start, end: end)
            (span.request, span.layer, span.rows) = (count, Int32(clamping: layer), Int32(clamping: rows))
            if name == .call { span.simulatedPicoseconds = simulatedPicoseconds }
            spans.record(span)
        }
        record(.call, timing.started, now)
        record(.read, timing.started, timing.readEnd)
        record(.compute, timing.readEnd, timing.computeEnd)
        record(.reply, timing.computeEnd, now)
        guard let logger, logger.minimumLevel <= .debug else { return }
        logger.debug(
            "call",
            [
                "trace": .string(timing.trace.id), "layer": LogValue(layer), "rows": LogValue(rows),
                "microseconds": LogValue((now - timing.started) / 1000),
            ])
    }
}
