import Foundation
import JSON

/// What a service answers when it is asked for its spans.
public struct SpanReport: Sendable, Equatable {
    /// Name of the service.
    public var service: String
    /// Which process of that service.
    public var instance: String
    /// The service's monotonic clock when it answered, nanoseconds.
    public var clock: Int64
    /// Spans recorded since the start, those among them that gave way to later ones.
    public var recorded: UInt64
    /// Spans the service keeps at most.
    public var capacity: Int
    /// The spans that were asked for.
    public var spans: [Span]

    /// A report.
    public init(
        service: String, instance: String, clock: Int64, recorded: UInt64, capacity: Int, spans: [Span]
    ) {
        self.service = service
        self.instance = instance
        self.clock = clock
        self.recorded = recorded
        self.capacity = capacity
        self.spans = spans
    }

    /// JSON; members that say nothing are left out.
    public var json: [UInt8] {
        var out: [UInt8] = []
        out.reserveCapacity(256 + 160 * spans.count)
        out.append(contentsOf: "{\"service\":\(JSONText.quoted(service)),".utf8)
        out.append(contentsOf: "\"instance\":\(JSONText.quoted(instance)),\"clock\":\(clock),".utf8)
        out.append(contentsOf: "\"recorded\":\(recorded),\"capacity\":\(capacity),\"spans\":[".utf8)
        for (index, span) in spans.enumerated() {
            out.append(contentsOf: (index > 0 ? ",\n" : "\n").utf8)
            Self.append(span, to: &out)
        }
        out.append(contentsOf: "\n]}\n".utf8)
        return out
    }

    private static func append(_ span: Span, to out: inout [UInt8]) {
        out.append(contentsOf: "{\"name\":\"\(span.name.rawValue)\",\"start\":\(span.start),\"end\":\(span.end)".utf8)
        if !span.trace.isNone { out.append(contentsOf: ",\"trace\":\"\(span.trace.id)\"".utf8) }
        if !span.lead.isNone { out.append(contentsOf: ",\"lead\":\"\(span.lead.id)\"".utf8) }
        if span.request > 0 { out.append(contentsOf: ",\"request\":\(span.request)".utf8) }
        if span.layer >= 0 { out.append(contentsOf: ",\"layer\":\(span.layer)".utf8) }
        if span.step > 0 { out.append(contentsOf: ",\"step\":\(span.step)".utf8) }
        if span.rows >= 0 { out.append(contentsOf: ",\"rows\":\(span.rows)".utf8) }
        if span.simulatedPicoseconds > 0 {
            out.append(contentsOf: ",\"simulated_ps\":\(span.simulatedPicoseconds)".utf8)
        }
        out.append(UInt8(ascii: "}"))
    }

    private struct Document: Decodable {
        struct Item: Decodable {
            let name: SpanName
            let start: Int64
            let end: Int64
            let trace: String?
            let lead: String?
            let request: UInt64?
            let layer: Int32?
            let step: Int64?
            let rows: Int32?
            let simulated_ps: UInt64?
        }

        let service: String
        let instance: String
        let clock: Int64
        let recorded: UInt64
        let capacity: Int
        let spans: [Item]
    }

    /// The report in what a service answered.
    ///
    /// - Throws: what `JSONDecoder` throws when it is none.
    public init(json: [UInt8]) throws {
        let document = try JSONDecoder().decode(Document.self, from: Data(json))
        self.init(
            service: document.service, instance: document.instance, clock: document.clock, recorded: document.recorded,
            capacity: document.capacity,
            spans: document.spans.map { item in
                var span = Span(
                    item.name, item.trace.flatMap { TraceContext(id: $0) } ?? .none, start: item.start,
                    end: max(item.start, item.end))
                span.lead = item.lead.flatMap { TraceContext(id: $0) } ?? .none
                span.request = item.request ?? 0
                span.layer = item.layer ?? -1
                span.step = item.step ?? 0
                span.rows = item.rows ?? -1
                span.simulatedPicoseconds = item.simulated_ps ?? 0
                return span
            })
    }
}
