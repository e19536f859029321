import Observability
import Scheduling

/// Records what a step does, when a request in it is traced or everything is: one span per traced request, and one each
/// for the step, its layers, their experts and the sampler under the trace of one of the requests. Costs a comparison per
/// call otherwise.
struct StepTrace {
    /// Requests of one step that get a span of their own at most.
    private static let maximumRequests = 64

    /// The trace of the step's calls: that of the first request that is traced, else of the first.
    let lead: TraceContext
    private let recorder: SpanRecorder?
    private let step: Int64
    private let requests: [(trace: TraceContext, number: UInt64)]
    private let started: Int64
    private var mark: Int64

    /// A step of these requests.
    init(_ recorder: SpanRecorder, step: Int64, _ plan: [StepEntry], _ call: (UInt64) -> AttentionEngine.Call?) {
        var lead = TraceContext.none
        for entry in plan where !lead.isSampled {
            guard let trace = call(entry.id)?.trace else { continue }
            if lead.isNone || trace.isSampled { lead = trace }
        }
        self.lead = lead
        self.step = step
        guard recorder.records(lead) else {
            self.recorder = nil
            self.requests = []
            (started, mark) = (0, 0)
            return
        }
        self.recorder = recorder
        requests = plan.compactMap { call($0.id) }.filter { recorder.records($0.trace) }
            .prefix(Self.maximumRequests).map { ($0.trace, $0.number) }
        started = Stopwatch.now
        mark = started
    }

    /// A layer's attention is done, that is, everything since the last call for experts.
    mutating func attention(_ layer: Int) { record(.attention, layer: layer) }

    /// The answer of a layer's experts is there.
    mutating func experts(_ layer: Int, rows: Int) { record(.experts, layer: layer, rows: rows) }

    /// The last layer's experts have been added.
    mutating func layersEnd() { if recorder != nil { mark = Stopwatch.now } }

    /// The sampler has answered.
    mutating func sampler(since start: Int64, rows: Int) {
        guard recorder != nil else { return }
        mark = start
        record(.sampler, rows: rows)
    }

    /// The step is done.
    func end(rows: Int) {
        guard let recorder else { return }
        var span = Span(.step, lead, start: started, end: Stopwatch.now)
        (span.lead, span.step, span.rows) = (lead, step, Int32(clamping: rows))
        recorder.record(span)
        for request in requests {
            (span.trace, span.request) = (request.trace, request.number)
            recorder.record(span)
        }
    }

    private mutating func record(_ name: SpanName, layer: Int = -1, rows: Int = -1) {
        guard let recorder else { return }
        let now = Stopwatch.now
        var span = Span(name, lead, start: mark, end: now)
        (span.step, span.layer, span.rows) = (step, Int32(clamping: layer), Int32(clamping: rows))
        recorder.record(span)
        mark = now
    }
}
