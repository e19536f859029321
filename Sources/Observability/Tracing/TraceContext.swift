/// The W3C trace context of a request: which trace its work belongs to, and whether whoever asked wants it recorded.
public struct TraceContext: Sendable, Hashable {
    /// First half of the trace id.
    public var high: UInt64
    /// Second half of the trace id.
    public var low: UInt64
    /// The flag that asks every service on the way to record spans.
    public var isSampled: Bool

    /// A context of its parts.
    public init(high: UInt64, low: UInt64, isSampled: Bool = false) {
        self.high = high
        self.low = low
        self.isSampled = isSampled
    }

    /// No trace.
    public static let none = TraceContext(high: 0, low: 0)

    /// A new trace.
    public static func random(isSampled: Bool = false) -> TraceContext {
        TraceContext(
            high: UInt64.random(in: 0...UInt64.max), low: UInt64.random(in: 1...UInt64.max), isSampled: isSampled)
    }

    /// True for none.
    public var isNone: Bool { high | low == 0 }

    /// The trace id as 32 lower-case hexadecimal digits.
    public var id: String { Self.hex(high) + Self.hex(low) }

    /// The trace of 32 lower-case hexadecimal digits that are not all 0; nil for anything else.
    public init?(id: some StringProtocol) {
        guard id.utf8.count == 32, Self.isHex(id), let high = UInt64(id.prefix(16), radix: 16),
            let low = UInt64(id.suffix(16), radix: 16), high | low != 0
        else { return nil }
        self.init(high: high, low: low)
    }

    /// The context in a `traceparent` header: version, trace id, parent id and flags in lower-case hexadecimal (W3C
    /// Trace Context, section 3.2). Nil for what is not one, which the standard says to ignore.
    public init?(traceparent text: String) {
        let parts = text.split(separator: "-", omittingEmptySubsequences: false)
        guard Self.isHex(text.utf8.prefix(55).filter { $0 != 0x2D }), parts.count >= 4, parts[0].utf8.count == 2,
            parts[0] != "ff", parts[0] != "00" || parts.count == 4, parts[2].utf8.count == 16,
            parts[3].utf8.count == 2, parts[2] != "0000000000000000", let flags = UInt8(parts[3], radix: 16),
            let trace = TraceContext(id: parts[1])
        else { return nil }
        self = trace
        isSampled = flags & 1 == 1
    }

    /// The `traceparent` header of work done for this trace by the span `span`.
    public func traceparent(span: UInt64) -> String { "00-\(id)-\(Self.hex(max(1, span)))-0\(isSampled ? 1 : 0)" }

    private static func hex(_ number: UInt64) -> String {
        let digits = String(number, radix: 16)
        return String(repeating: "0", count: 16 - digits.utf8.count) + digits
    }

    private static func isHex(_ text: some StringProtocol) -> Bool { isHex(Array(text.utf8)) }

    private static func isHex(_ bytes: [UInt8]) -> Bool {
        bytes.allSatisfy { (0x30...0x39).contains($0) || (0x61...0x66).contains($0) }
    }
}
