/// Server-sent events: bytes in, the data of complete events out (WHATWG HTML, section 9.2.6). Names, ids and comments
/// are passed over. A value type without I/O.
public struct EventStreamParser: Sendable {
    /// Bytes of one event, at most.
    public static let eventBytes = 1 << 20

    private var line: [UInt8] = []
    private var data: [UInt8] = []
    private var hasData = false
    private var endedWithReturn = false

    /// A parser at the start of a stream.
    public init() {}

    /// Takes the next bytes; returns the data of the events they complete. Nil when an event is too long.
    public mutating func append(_ bytes: [UInt8]) -> [[UInt8]]? {
        var events: [[UInt8]] = []
        for byte in bytes {
            let followsReturn = endedWithReturn
            endedWithReturn = byte == 13
            if byte == 10, followsReturn { continue }
            if byte == 10 || byte == 13 {
                endLine(&events)
            } else {
                line.append(byte)
                guard line.count + data.count <= Self.eventBytes else { return nil }
            }
        }
        return events
    }

    private mutating func endLine(_ events: inout [[UInt8]]) {
        defer { line.removeAll(keepingCapacity: true) }
        guard !line.isEmpty else {
            if hasData { events.append(data) }
            (data, hasData) = ([], false)
            return
        }
        guard line.starts(with: Self.field) else { return }
        var value = line.dropFirst(Self.field.count)
        if value.isEmpty || value.first == UInt8(ascii: ":") {
            value = value.dropFirst()
            if value.first == 32 { value = value.dropFirst() }
            if hasData { data.append(10) }
            data += value
            hasData = true
        }
    }

    private static let field = Array("data".utf8)
}
