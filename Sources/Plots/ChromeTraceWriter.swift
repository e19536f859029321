import JSON

/// Writes Chrome's trace format, which Perfetto opens: processes with threads, and spans on them. Spans of one thread
/// must nest or follow each other.
public struct ChromeTraceWriter: Sendable {
    /// A value beside a span.
    public enum Argument: Sendable, Equatable {
        /// Text.
        case text(String)
        /// A whole number.
        case number(Int64)
    }

    private var lines: [String] = []
    private let unit: String

    /// A trace without processes.
    ///
    /// - unit: in which the viewer shows times, ns or ms.
    public init(unit: String = "ns") { self.unit = unit }

    /// Names a process; processes are shown in the order of their numbers.
    public mutating func process(_ process: Int, name: String) {
        let place = "\"pid\":\(process),\"tid\":0"
        lines.append("{\"ph\":\"M\",\"name\":\"process_name\",\(place),\"args\":{\"name\":\(JSONText.quoted(name))}}")
        lines.append("{\"ph\":\"M\",\"name\":\"process_sort_index\",\(place),\"args\":{\"sort_index\":\(process)}}")
    }

    /// Names a thread of a process; threads are shown in the order of their numbers. Perfetto takes a number for unique
    /// among all processes, 0 for the idle thread, and its process's for the main one.
    public mutating func thread(_ process: Int, _ thread: Int, name: String) {
        let place = "\"pid\":\(process),\"tid\":\(thread)"
        lines.append("{\"ph\":\"M\",\"name\":\"thread_name\",\(place),\"args\":{\"name\":\(JSONText.quoted(name))}}")
        lines.append("{\"ph\":\"M\",\"name\":\"thread_sort_index\",\(place),\"args\":{\"sort_index\":\(thread)}}")
    }

    /// A span on a thread, in nanoseconds from the start of the trace.
    public mutating func span(
        _ name: String, _ process: Int, _ thread: Int, start: Int64, duration: Int64,
        _ arguments: KeyValuePairs<String, Argument> = [:]
    ) {
        var line = "{\"ph\":\"X\",\"name\":\(JSONText.quoted(name)),\"pid\":\(process),\"tid\":\(thread),\"ts\":"
        line += Self.microseconds(start) + ",\"dur\":" + Self.microseconds(duration)
        if !arguments.isEmpty {
            let members = arguments.map { key, value in
                switch value {
                case .text(let text): "\(JSONText.quoted(key)):\(JSONText.quoted(text))"
                case .number(let number): "\(JSONText.quoted(key)):\(number)"
                }
            }
            line += ",\"args\":{" + members.joined(separator: ",") + "}"
        }
        lines.append(line + "}")
    }

    /// Values of a process from `time` on, nanoseconds from the start of the trace.
    public mutating func counter(
        _ name: String, _ process: Int, time: Int64, _ values: KeyValuePairs<String, Int>
    ) {
        let members = values.map { "\(JSONText.quoted($0)):\($1)" }.joined(separator: ",")
        lines.append(
            "{\"ph\":\"C\",\"name\":\(JSONText.quoted(name)),\"pid\":\(process),\"ts\":"
                + "\(Self.microseconds(time)),\"args\":{\(members)}}")
    }

    /// An arrow between the spans around two points, each a time in nanoseconds on a thread of a process.
    public mutating func arrow(
        _ number: Int, from: (process: Int, thread: Int, time: Int64), to: (process: Int, thread: Int, time: Int64)
    ) {
        for (phase, point) in [("\"s\"", from), ("\"f\",\"bp\":\"e\"", to)] {
            lines.append(
                "{\"ph\":\(phase),\"name\":\"call\",\"cat\":\"call\",\"id\":\(number),\"pid\":\(point.process),\"tid\":"
                    + "\(point.thread),\"ts\":\(Self.microseconds(point.time))}")
        }
    }

    /// The file.
    public var json: [UInt8] {
        Array(("{\"displayTimeUnit\":\"\(unit)\",\"traceEvents\":[\n" + lines.joined(separator: ",\n") + "\n]}\n").utf8)
    }

    private static func microseconds(_ nanoseconds: Int64) -> String {
        let whole = max(0, nanoseconds)
        let fraction = String(whole % 1000)
        return "\(whole / 1000)." + String(repeating: "0", count: 3 - fraction.utf8.count) + fraction
    }
}
