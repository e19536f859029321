/// Where a text stops being JSON, and why.
public struct JSONError: Error, Sendable, Equatable, CustomStringConvertible {
    /// Line of the place, from 1; lines end with a line feed.
    public let line: Int
    /// Unicode scalars of that line before the place, plus 1.
    public let column: Int
    /// What is wrong there.
    public let reason: String
    /// What stands at the place, at most a few characters of the line; empty at the end of the text.
    public let excerpt: String

    /// One sentence with all of it.
    public var description: String {
        let there = excerpt.isEmpty ? "the text ends there" : "there stands: \(excerpt)"
        return "line \(line), column \(column): \(reason); \(there)"
    }

    /// The error at byte `offset` of `bytes`.
    init(_ reason: String, _ bytes: [UInt8], at offset: Int) {
        let before = bytes[..<min(offset, bytes.count)]
        let start = before.lastIndex(of: UInt8(ascii: "\n")).map { $0 + 1 } ?? 0
        line = before.count { $0 == UInt8(ascii: "\n") } + 1
        column = before[start...].count { $0 & 0xC0 != 0x80 } + 1
        self.reason = reason
        let rest = bytes[before.endIndex...].prefix(32)
        let text = String(decoding: rest.prefix { $0 != UInt8(ascii: "\n") && $0 != UInt8(ascii: "\r") }, as: UTF8.self)
        let shown = text.unicodeScalars.prefix(24).map { scalar in
            scalar.value < 0x20 || scalar.value == 0x7F
                ? "\\u{\(String(scalar.value, radix: 16))}" : String(scalar)
        }.joined()
        excerpt = shown.isEmpty && !rest.isEmpty ? "the end of the line" : shown
    }
}
