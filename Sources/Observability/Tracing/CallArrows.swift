import Plots

/// Finds which call of an attention instance a service answered, and draws an arrow from the one to the other; a pure
/// value.
struct CallArrows {
    private struct End {
        let span: Span
        let process: Int
        let thread: Int
    }

    private struct Key: Hashable {
        let service: SpanName
        let layer: Int32
        let high: UInt64
        let low: UInt64

        init(_ service: SpanName, _ span: Span) {
            (self.service, layer, high, low) = (service, span.layer, span.trace.high, span.trace.low)
        }
    }

    private var callers: [Key: [End]] = [:]
    private var answers: [(service: SpanName, end: End)] = []

    /// Takes the calls among the placed spans of a service.
    mutating func add(_ placed: [SpanLayout.Placed], of service: String, _ process: Int, firstLane: Int) {
        for item in placed {
            let end = End(span: item.span, process: process, thread: firstLane + item.lane)
            switch item.span.name {
            case .experts, .sampler: callers[Key(item.span.name, item.span), default: []].append(end)
            case .call: if let name = SpanName(rawValue: service) { answers.append((name, end)) }
            default: break
            }
        }
    }

    /// Draws an arrow to every answer of whose call there is no doubt: the only one of this layer and trace that lasts
    /// while the answer's middle passes.
    func write(to writer: inout ChromeTraceWriter, origin: Int64) {
        let sorted = callers.mapValues { $0.sorted { $0.span.start < $1.span.start } }
        for (number, answer) in answers.enumerated() {
            guard let caller = caller(of: answer.end.span, in: sorted[Key(answer.service, answer.end.span)] ?? [])
            else {
                continue
            }
            writer.arrow(
                number + 1, from: (caller.process, caller.thread, caller.span.start - origin),
                to: (answer.end.process, answer.end.thread, answer.end.span.start - origin))
        }
    }

    private func caller(of answer: Span, in calls: [End]) -> End? {
        let middle = answer.start + (answer.end - answer.start) / 2
        var low = 0
        var high = calls.count
        while low < high {
            let index = (low + high) / 2
            if calls[index].span.start <= middle { low = index + 1 } else { high = index }
        }
        // Calls of one instance follow each other; of several instances a few overlap.
        let around = calls[max(0, low - 16)..<low].filter { middle <= $0.span.end }
        return around.count == 1 ? around.first : nil
    }
}
