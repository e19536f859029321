import Observability
import Testing

@Suite struct SpanRecorderTests {
    private let trace = TraceContext(high: 1, low: 2, isSampled: true)

    private func span(_ start: Int64, _ end: Int64, _ trace: TraceContext) -> Span {
        Span(.step, trace, start: start, end: end)
    }

    @Test func aRingKeepsTheLatestInOrder() {
        let recorder = SpanRecorder(capacity: 3)
        for time in Int64(0)..<5 { recorder.record(span(time, time + 1, trace)) }
        #expect(recorder.spans().map(\.start) == [2, 3, 4])
        #expect(recorder.recordedCount == 5)
    }

    @Test func nothingIsRecordedUnlessATraceOrAWindowAsksForIt() {
        let recorder = SpanRecorder(capacity: 3)
        let plain = TraceContext(high: 3, low: 4)
        #expect(recorder.records(trace) && !recorder.records(plain) && !recorder.records(.none))
        recorder.openWindow()
        recorder.openWindow()
        recorder.closeWindow()
        #expect(recorder.records(plain))
        recorder.closeWindow()
        #expect(!recorder.records(plain))
    }

    @Test func aQueryNamesTracesAndATime() {
        let recorder = SpanRecorder(capacity: 8)
        let other = TraceContext(high: 1, low: 3)
        for (start, trace) in [(0, trace), (10, other), (20, trace)] as [(Int64, TraceContext)] {
            recorder.record(span(start, start + 5, trace))
        }
        var query = SpanRecorder.Query()
        query.traces = [TraceContext(high: 1, low: 2)]
        #expect(recorder.spans(query).map(\.start) == [0, 20])
        query.since = 6
        #expect(recorder.spans(query).map(\.start) == [20])
        query = .init()
        (query.since, query.until) = (5, 10)
        #expect(recorder.spans(query).map(\.start) == [0, 10])
    }

    @Test func aReportSurvivesItsJSON() throws {
        var full = Span(.experts, trace, start: 5, end: 9)
        full.trace.isSampled = false
        (full.lead, full.request, full.layer, full.step, full.rows, full.simulatedPicoseconds) = (
            TraceContext(high: 7, low: 8), 3, 0, 4, 0, 12
        )
        let report = SpanReport(
            service: "a\"b", instance: "c\n", clock: 77, recorded: 9, capacity: 10,
            spans: [full, Span(.handingOff, .none, start: 1, end: 1)])
        #expect(try SpanReport(json: report.json) == report)
        #expect(throws: (any Error).self) { try SpanReport(json: Array("{\"spans\":[]}".utf8)) }
    }
}

@Suite struct LiveRequestsTests {
    private let recorder = SpanRecorder(capacity: 16)
    private let trace = TraceContext(high: 1, low: 2, isSampled: true)

    @Test func phasesLeaveSpansAndTimes() {
        let live = LiveRequests(recorder: recorder)
        let number = live.begin(.queued, trace: trace, name: "a", now: 100)
        live.enter(.queued, number, now: 110)
        live.enter(.prefill, number, place: "x:1", promptTokens: 7, now: 150)
        live.token(number, now: 160)
        live.enter(.decode, number, now: 170)
        #expect(live.oldest(limit: 5).requests.first?.phase == .decode)
        let ended = live.end(number, now: 200)
        #expect(ended?.tokens == 1 && ended?.promptTokens == 7 && ended?.place == "x:1")
        #expect(ended?.time(in: .queued) == 50 && ended?.time(in: .decode) == 30)
        #expect(recorder.spans().map(\.name) == [.queued, .prefill, .decode, .completion])
        #expect(recorder.spans().map { $0.end - $0.start } == [50, 20, 30, 100])
        #expect(live.count == 0 && live.end(number) == nil)
    }

    @Test func theLongestInTheirPhaseComeFirstAndAreCounted() {
        let live = LiveRequests(recorder: recorder)
        let numbers = (0..<4).map { live.begin(.queued, trace: .none, now: Int64(100 - $0)) }
        live.enter(.decode, numbers[3], now: 200)
        let (oldest, count) = live.oldest(limit: 2)
        #expect(oldest.map(\.number) == [numbers[2], numbers[1]] && count == 4)
        let json = String(
            decoding: LiveRequestsReport(service: "s", instance: "i", live).json(limit: 1, now: 1_000_098),
            as: UTF8.self)
        #expect(json.contains("\"count\":4") && json.contains("\"phase_seconds\":0.001000"))
        #expect(!json.contains("decode"))
        #expect(recorder.spans().isEmpty)
    }
}
