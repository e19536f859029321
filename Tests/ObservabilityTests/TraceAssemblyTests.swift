import Foundation
import Observability
import TestSupport
import Testing

@Suite struct SpanLayoutTests {
    private func span(_ start: Int64, _ end: Int64, request: UInt64 = 0) -> Span {
        var span = Span(.step, .none, start: start, end: end)
        span.request = request
        return span
    }

    @Test func spansNestOrFollowEachOtherOnALane() {
        let placed = SpanLayout.nest([span(0, 100), span(0, 50), span(50, 100), span(60, 70), span(100, 120)])
        #expect(placed.map(\.lane) == [0, 0, 0, 0, 0])
        let late = SpanLayout.tolerance
        let crossing = SpanLayout.nest([span(0, 1_000_000), span(500_000, 1_000_000 + late), span(600_000, 2_000_000)])
        #expect(crossing.map(\.lane) == [0, 0, 1])
        #expect(crossing[1].span.end == 1_000_000)
    }

    /// Random spans: on every lane, any two nest or do not touch.
    @Test func noTwoSpansOfALaneCross() {
        var random = SeededRandom(seed: 41)
        let spans = (0..<400).map { _ -> Span in
            let start = Int64.random(in: 0...100_000_000, using: &random)
            return span(
                start, start + Int64.random(in: 0...20_000_000, using: &random),
                request: UInt64.random(in: 0...20, using: &random))
        }
        let placed = SpanLayout.place(spans, maximumLanes: 4096)
        #expect(placed.count == spans.count)
        for lane in Dictionary(grouping: placed, by: \.lane).values {
            for (index, one) in lane.enumerated() {
                for other in lane[(index + 1)...] {
                    let (a, b) = one.span.start <= other.span.start ? (one.span, other.span) : (other.span, one.span)
                    let nests = b.end <= a.end || (a.start == b.start && a.end <= b.end)
                    #expect(nests || b.start >= a.end, "\(a.start)-\(a.end) and \(b.start)-\(b.end)")
                }
            }
        }
    }
}

@Suite struct TraceAssemblyTests {
    private let trace = TraceContext(high: 0, low: 1)
    private let lead = TraceContext(high: 0, low: 2)

    private func span(
        _ name: SpanName, _ trace: TraceContext, _ start: Int64, _ end: Int64, request: UInt64 = 0, layer: Int32 = -1,
        step: Int64 = 0
    ) -> Span {
        var span = Span(name, trace, start: start, end: end)
        (span.request, span.layer, span.step) = (request, layer, step)
        return span
    }

    private func report(_ service: String, _ spans: [Span]) -> SpanReport {
        SpanReport(service: service, instance: "\(service)-1", clock: 0, recorded: 0, capacity: 100, spans: spans)
    }

    /// A step that another request leads: its layers, and the calls made for them, belong to both.
    private var reports: [SpanReport] {
        var own = span(.step, trace, 20, 60, request: 5, step: 9)
        own.lead = lead
        var call = span(.call, lead, 42, 54, request: 1, layer: 1)
        call.simulatedPicoseconds = 3_000_000
        return [
            report(
                "experts",
                [
                    call, span(.call, lead, 10, 15, request: 2, layer: 1),
                    span(.call, trace, 42, 54, request: 3, layer: 1),
                ]),
            report(
                "attention",
                [
                    own, span(.attention, lead, 20, 40, layer: 1, step: 9),
                    span(.experts, lead, 40, 58, layer: 1, step: 9),
                    span(.attention, lead, 70, 80, layer: 1, step: 10),
                    span(.attention, trace, 20, 40, layer: 1, step: 8),
                    span(.completion, trace, 15, 65, request: 5),
                ]),
            report(
                "gateway", [span(.request, trace, 0, 100, request: 1), span(.streaming, trace, 50, 90, request: 1)]),
        ]
    }

    @Test func aRequestHasTheLayersAndCallsOfItsSteps() {
        let spans = TraceAssembly(reports: reports, trace: trace).requestSpans(trace)
        #expect(
            spans.map(\.name.rawValue).sorted() == ["attention", "call", "completion", "experts", "request", "step"])
        #expect(spans.first { $0.name == .attention }?.start == 20)
        #expect(spans.first { $0.name == .call }?.simulatedPicoseconds == 3_000_000)
    }

    @Test func theFileIsJSONWithAProcessPerServiceAndOneForTheSimulatedClock() throws {
        let bytes = TraceAssembly(reports: reports, trace: trace).chromeTrace()
        let document = try #require(try JSONSerialization.jsonObject(with: Data(bytes)) as? [String: Any])
        let events = try #require(document["traceEvents"] as? [[String: Any]])
        let names = events.filter { $0["name"] as? String == "process_name" }
            .compactMap { ($0["args"] as? [String: Any])?["name"] as? String }
        #expect(
            names == [
                "request \(trace.id)", "gateway (gateway-1)", "attention (attention-1)", "experts (experts-1)",
                "experts (experts-1), simulated clock",
            ])
        let first = events.filter { $0["ph"] as? String == "X" && $0["pid"] as? Int == 1 }
        #expect(first.compactMap { $0["name"] as? String }.contains("experts layer 1"))
        let simulated = events.filter { $0["ph"] as? String == "X" && $0["pid"] as? Int == 5 }
        #expect(simulated.count == 1 && simulated[0]["dur"] as? Double == 3)
        let arrows = events.filter { $0["cat"] as? String == "call" }
        #expect(arrows.map { $0["ph"] as? String } == ["s", "f"])
        #expect(arrows.map { $0["pid"] as? Int } == [3, 4])
        #expect(arrows.map { $0["ts"] as? Double } == [0.04, 0.042])
    }

    /// Two instances call for the same layer at the same time, and nothing tells whose call was answered.
    @Test func noArrowIsDrawnOnAGuess() throws {
        let caller = span(.experts, .none, 40, 58, layer: 1, step: 9)
        func arrows(_ callers: [Span]) -> Int {
            let reports =
                callers.map { report("attention", [$0]) } + [
                    report("experts", [span(.call, .none, 42, 54, request: 1, layer: 1)])
                ]
            let file = TraceAssembly(reports: reports, trace: nil).chromeTrace()
            return String(decoding: file, as: UTF8.self).components(separatedBy: "\"cat\":\"call\"").count - 1
        }
        #expect(arrows([caller]) == 2)
        #expect(arrows([caller, caller]) == 0)
    }
}
