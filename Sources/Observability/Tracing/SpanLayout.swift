/// Puts spans on lanes so that those of one lane nest or follow each other, as viewers of traces want them; a pure
/// value.
public struct SpanLayout: Sendable {
    /// A span with its place.
    public struct Placed: Sendable, Equatable {
        /// The span; its end is cut to that of the span around it.
        public var span: Span
        /// The lane, from 0.
        public var lane: Int
    }

    /// By how much a span may end after the one around it, and is then cut, nanoseconds: clocks are read one after the
    /// other.
    public static let tolerance: Int64 = 200_000

    private struct Lane {
        var ends: [Int64] = []

        /// Takes the span if it nests in or follows what is here; returns where it ends then.
        mutating func take(_ span: Span) -> Int64? {
            while let last = ends.last, last <= span.start { ends.removeLast() }
            guard let around = ends.last else {
                ends.append(span.end)
                return span.end
            }
            guard span.end <= around + SpanLayout.tolerance else { return nil }
            ends.append(min(span.end, around))
            return min(span.end, around)
        }
    }

    /// Puts spans on the first lanes that take them. Spans of one request come on lanes that no other request uses at
    /// that time.
    public static func place(_ spans: [Span], maximumLanes: Int = 256) -> [Placed] {
        let groups = Dictionary(grouping: spans, by: \.request).values.map { group in
            group.sorted { ($0.start, -$0.end) < ($1.start, -$1.end) }
        }
        var placed: [Placed] = []
        var busyUntil: [Int64] = []
        for group in groups.sorted(by: { ($0[0].start, $0[0].request) < ($1[0].start, $1[0].request) }) {
            let inner = nest(group)
            let width = (inner.map(\.lane).max() ?? 0) + 1
            let start = group[0].start
            let end = group.map(\.end).max() ?? start
            var first = 0
            while first < busyUntil.count,
                busyUntil[first..<min(first + width, busyUntil.count)].contains(where: { $0 > start })
            {
                first += 1
            }
            guard first + width <= maximumLanes else { continue }
            for lane in first..<first + width {
                if lane < busyUntil.count { busyUntil[lane] = end } else { busyUntil.append(end) }
            }
            placed += inner.map { Placed(span: $0.span, lane: first + $0.lane) }
        }
        return placed
    }

    /// Lanes of spans that belong together, sorted by their start, longer ones first.
    package static func nest(_ spans: [Span]) -> [Placed] {
        var lanes: [Lane] = []
        return spans.map { span in
            var span = span
            for lane in lanes.indices {
                guard let end = lanes[lane].take(span) else { continue }
                span.end = max(span.start, end)
                return Placed(span: span, lane: lane)
            }
            lanes.append(Lane(ends: [span.end]))
            return Placed(span: span, lane: lanes.count - 1)
        }
    }
}
