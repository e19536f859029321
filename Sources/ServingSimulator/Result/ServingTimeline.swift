import LoadTesting
import Plots

/// Steps and requests over time, up to a limit, for Chrome's trace format, which Perfetto opens: a process per slice with
/// a track of its steps and counters of its rows, and a process with the requests.
public struct ServingTimeline: Sendable {
    private struct RequestSpan: Sendable {
        let index: Int
        let sent: UInt64
        let first: UInt64?
        let ended: UInt64
        let tokens: Int
    }

    /// Spans that are kept, at most.
    public let limit: Int
    /// Spans that came after the limit was reached.
    public private(set) var dropped = 0
    private let slices: [String]
    private var steps: [(slice: Int, span: StepSpan)] = []
    private var requests: [RequestSpan] = []

    init(limit: Int, slices: [String]) {
        self.limit = limit
        self.slices = slices
    }

    mutating func addStep(_ span: StepSpan, slice: Int) {
        guard steps.count < limit else {
            dropped += limit > 0 ? 1 : 0
            return
        }
        steps.append((slice, span))
    }

    mutating func addRequest(_ record: RequestRecord, tokens: Int) {
        guard requests.count < limit else { return }
        requests.append(
            RequestSpan(
                index: record.index, sent: record.sent, first: record.outputTimes.first, ended: record.ended,
                tokens: tokens))
    }

    /// The trace as UTF-8.
    public func chromeTrace() -> [UInt8] {
        var writer = ChromeTraceWriter(unit: "ms")
        for (index, name) in slices.enumerated() { writer.process(index + 1, name: "slice \(name)") }
        writer.process(Self.requestProcess, name: "requests")
        for (slice, span) in steps {
            let rows = span.prefillRows + span.decodeRows
            writer.span(
                "\(span.kind.rawValue) \(rows)", slice + 1, 0, start: Int64(span.start),
                duration: Int64(span.end - span.start),
                ["prefill_rows": .number(Int64(span.prefillRows)), "decode_rows": .number(Int64(span.decodeRows))])
            writer.counter(
                "rows", slice + 1, time: Int64(span.start), ["prefill": span.prefillRows, "decode": span.decodeRows])
        }
        for (lane, span) in Self.lanes(requests) { Self.write(span, lane, &writer) }
        return writer.json
    }

    private static let requestProcess = 1000

    /// Requests on as few tracks as do without overlap.
    private static func lanes(_ requests: [RequestSpan]) -> [(lane: Int, span: RequestSpan)] {
        var ends: [UInt64] = []
        return requests.sorted { ($0.sent, $0.index) < ($1.sent, $1.index) }.map { span in
            if let lane = ends.firstIndex(where: { $0 <= span.sent }) {
                ends[lane] = span.ended
                return (lane, span)
            }
            ends.append(span.ended)
            return (ends.count - 1, span)
        }
    }

    /// A request's wait for its first token, and the rest of it; its times are microseconds.
    private static func write(_ span: RequestSpan, _ lane: Int, _ writer: inout ChromeTraceWriter) {
        let first = span.first ?? span.ended
        func nanoseconds(_ microseconds: UInt64) -> Int64 { Int64(microseconds) * 1000 }
        writer.span(
            "request \(span.index) to first token", requestProcess, lane, start: nanoseconds(span.sent),
            duration: nanoseconds(first - span.sent))
        guard span.ended > first else { return }
        writer.span(
            "request \(span.index)", requestProcess, lane, start: nanoseconds(first),
            duration: nanoseconds(span.ended - first), ["tokens": .number(Int64(span.tokens))])
    }
}
