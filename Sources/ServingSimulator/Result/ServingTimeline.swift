import LoadTesting

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
        var lines: [String] = []
        for (index, name) in slices.enumerated() { lines.append(Self.process(index + 1, "slice \(name)")) }
        lines.append(Self.process(Self.requestProcess, "requests"))
        for (slice, span) in steps {
            let rows = span.prefillRows + span.decodeRows
            lines.append(
                Self.complete(
                    "\(span.kind.rawValue) \(rows)", slice + 1, 0, start: Double(span.start) / 1000,
                    duration: Double(span.end - span.start) / 1000,
                    arguments: "\"prefill_rows\":\(span.prefillRows),\"decode_rows\":\(span.decodeRows)"))
            lines.append(
                "{\"ph\":\"C\",\"name\":\"rows\",\"pid\":\(slice + 1),\"ts\":\(Self.number(Double(span.start) / 1000)),"
                    + "\"args\":{\"prefill\":\(span.prefillRows),\"decode\":\(span.decodeRows)}}")
        }
        for (lane, span) in Self.lanes(requests) { lines += Self.lines(of: span, lane) }
        return Array(
            ("{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n" + lines.joined(separator: ",\n") + "\n]}\n").utf8)
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

    private static func lines(of span: RequestSpan, _ lane: Int) -> [String] {
        let first = span.first ?? span.ended
        let wait = complete(
            "request \(span.index) to first token", requestProcess, lane, start: Double(span.sent),
            duration: Double(first - span.sent), arguments: "")
        guard span.ended > first else { return [wait] }
        return [
            wait,
            complete(
                "request \(span.index)", requestProcess, lane, start: Double(first),
                duration: Double(span.ended - first),
                arguments: "\"tokens\":\(span.tokens)"),
        ]
    }

    private static func process(_ number: Int, _ name: String) -> String {
        "{\"ph\":\"M\",\"name\":\"process_name\",\"pid\":\(number),\"tid\":0,\"args\":{\"name\":\"\(name)\"}}"
    }

    private static func complete(
        _ name: String, _ process: Int, _ track: Int, start: Double, duration: Double, arguments: String
    ) -> String {
        "{\"ph\":\"X\",\"name\":\"\(name)\",\"pid\":\(process),\"tid\":\(track),\"ts\":\(number(start)),"
            + "\"dur\":\(number(duration)),\"args\":{\(arguments)}}"
    }

    /// Microseconds with three decimals.
    private static func number(_ value: Double) -> String {
        let thousandths = UInt64((value * 1000).rounded())
        let fraction = String(thousandths % 1000)
        return "\(thousandths / 1000)." + String(repeating: "0", count: 3 - fraction.count) + fraction
    }
}
