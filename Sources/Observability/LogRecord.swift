import Glibc

/// How much a log line matters.
public enum LogLevel: String, Sendable, Comparable, CaseIterable {
    /// For whoever looks for a fault.
    case debug
    /// What happens in normal service.
    case info
    /// Something was refused, retried or slow.
    case warning
    /// Something failed.
    case error

    private var rank: Int {
        switch self {
        case .debug: 0
        case .info: 1
        case .warning: 2
        case .error: 3
        }
    }

    /// Ordered from debug to error.
    public static func < (first: LogLevel, second: LogLevel) -> Bool { first.rank < second.rank }
}

/// The value of a key in a log line.
public enum LogValue: Sendable, Equatable, CustomStringConvertible, ExpressibleByStringInterpolation,
    ExpressibleByIntegerLiteral, ExpressibleByFloatLiteral, ExpressibleByBooleanLiteral
{
    /// Text; quoted in the line where needed.
    case string(String)
    /// A whole number.
    case integer(Int64)
    /// A number.
    case double(Double)
    /// True or false.
    case bool(Bool)

    /// Text.
    public init(stringLiteral value: String) { self = .string(value) }
    /// A whole number.
    public init(integerLiteral value: Int64) { self = .integer(value) }
    /// A number.
    public init(floatLiteral value: Double) { self = .double(value) }
    /// True or false.
    public init(booleanLiteral value: Bool) { self = .bool(value) }
    /// A whole number; what does not fit is the nearest that does.
    public init(_ value: some BinaryInteger) { self = .integer(Int64(clamping: value)) }
    /// Whatever describes itself.
    public init(describing value: some CustomStringConvertible) { self = .string(value.description) }

    /// The value as text, not quoted.
    public var description: String {
        switch self {
        case .string(let text): text
        case .integer(let number): String(number)
        case .double(let number): String(number)
        case .bool(let flag): flag ? "true" : "false"
        }
    }
}

/// A key and its value.
public struct LogField: Sendable, Equatable {
    /// The key.
    public let key: String
    /// The value.
    public let value: LogValue

    /// A field.
    public init(_ key: String, _ value: LogValue) {
        self.key = key
        self.value = value
    }
}

/// One event as it was logged.
public struct LogRecord: Sendable, Equatable {
    /// Longest line, bytes, its end included: what a pipe takes in one piece, so that lines of several processes do not
    /// mix.
    public static let maximumLineBytes = 4096

    /// Milliseconds since 1970, UTC.
    public let time: Int64
    /// How much it matters.
    public let level: LogLevel
    /// Name of the service.
    public let service: String
    /// What happened.
    public let message: String
    /// The fields: the logger's own, then those of the event.
    public let fields: [LogField]

    /// The value of a key; of several the last.
    public subscript(_ key: String) -> LogValue? { fields.last { $0.key == key }?.value }

    /// The record as one line without its end: `2026-01-31T08:15:00.250Z info gateway "listening" port=8000`. Keys and
    /// values cannot break the line or pretend to be other fields; a line that is too long is cut and ends in `…`.
    public var line: String {
        var text = "\(Timestamp.text(milliseconds: time)) \(level.rawValue) "
        text += Self.quoted(service, always: false) + " " + Self.quoted(message, always: true)
        for field in fields {
            guard text.utf8.count < Self.maximumLineBytes else { break }
            text += " " + Self.key(field.key) + "=" + Self.quoted(field.value.description, always: false)
        }
        return Self.cut(text)
    }

    private static func key(_ key: String) -> String {
        let letters = key.unicodeScalars.prefix(64).map { scalar -> Character in
            let isPlain = scalar.isASCII && (scalar.properties.isAlphabetic || scalar.properties.numericType != nil)
            return isPlain || scalar == "." || scalar == "-" ? Character(scalar) : "_"
        }
        return letters.isEmpty ? "_" : String(letters)
    }

    private static func quoted(_ value: String, always: Bool) -> String {
        let scalars = value.unicodeScalars.prefix(maximumLineBytes)
        let isPlain = scalars.allSatisfy { $0.value > 0x20 && $0.value < 0x7F && $0 != "\"" && $0 != "=" && $0 != "\\" }
        if isPlain, !always, !scalars.isEmpty { return String(scalars) }
        var out = "\""
        for scalar in scalars {
            switch scalar {
            case "\"": out += "\\\""
            case "\\": out += "\\\\"
            case "\n": out += "\\n"
            case "\r": out += "\\r"
            case "\t": out += "\\t"
            default:
                // Control and format characters could hide or reorder text on a terminal.
                switch scalar.properties.generalCategory {
                case .control, .format, .lineSeparator, .paragraphSeparator:
                    out += "\\u{" + String(scalar.value, radix: 16) + "}"
                default: out.unicodeScalars.append(scalar)
                }
            }
        }
        return out + "\""
    }

    private static func cut(_ text: String) -> String {
        guard text.utf8.count >= maximumLineBytes else { return text }
        let mark = "…"
        var end = text.utf8.index(text.startIndex, offsetBy: maximumLineBytes - 1 - mark.utf8.count)
        while end > text.startIndex, end.samePosition(in: text.unicodeScalars) == nil {
            end = text.utf8.index(before: end)
        }
        return String(text[..<end]) + mark
    }
}

/// Dates as logs show them, UTC.
enum Timestamp {
    static func text(milliseconds: Int64) -> String {
        let isBefore = milliseconds % 1000 < 0
        let rest = milliseconds % 1000 + (isBefore ? 1000 : 0)
        var (seconds, parts) = (time_t(milliseconds / 1000 - (isBefore ? 1 : 0)), tm())
        gmtime_r(&seconds, &parts)
        let date = "\(padded(1900 + Int64(parts.tm_year), 4))-\(padded(Int64(parts.tm_mon) + 1, 2))-"
        let clock = [parts.tm_hour, parts.tm_min, parts.tm_sec].map { padded(Int64($0), 2) }.joined(separator: ":")
        return "\(date)\(padded(Int64(parts.tm_mday), 2))T\(clock).\(padded(rest, 3))Z"
    }

    private static func padded(_ value: Int64, _ width: Int) -> String {
        let digits = String(value)
        return String(repeating: "0", count: max(0, width - digits.count)) + digits
    }
}
