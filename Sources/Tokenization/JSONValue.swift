/// A JSON document that keeps the order of its members and the spelling of its numbers.
///
/// Tool descriptions go into a prompt in the order and spelling they came in, and keys that are equal only after Unicode
/// normalisation must stay apart, so neither a `Dictionary` nor a `String` comparison will do here.
public enum JSONValue: Sendable, Equatable {
    /// `null`.
    case null
    /// `true` or `false`.
    case bool(Bool)
    /// A number as it was spelled.
    case number(String)
    /// A string, unescaped.
    case string(String)
    /// An array.
    case array([JSONValue])
    /// An object, its members in document order; names are unique.
    case object([Member])

    /// One name and its value.
    public struct Member: Sendable, Equatable {
        /// The name.
        public let name: String
        /// The value.
        public let value: JSONValue

        /// A member of an object.
        public init(_ name: String, _ value: JSONValue) {
            self.name = name
            self.value = value
        }
    }

    /// Parses a whole document. Nesting deeper than 128, a repeated name, a lone surrogate and invalid UTF-8 are refused
    /// with the byte offset.
    public init(parsing bytes: [UInt8]) throws(TokenizerError) {
        var parser = JSONParser(bytes)
        self = try parser.document()
    }

    /// The member of an object with exactly this name (compared by bytes), or nil.
    public subscript(_ name: String) -> JSONValue? {
        guard case .object(let members) = self else { return nil }
        return members.first { $0.name.utf8.elementsEqual(name.utf8) }?.value
    }

    /// The value on one line with ", " and ": " between parts, as chat templates' `tojson` writes it.
    public var text: String {
        var out = ""
        write(to: &out)
        return out
    }

    private func write(to out: inout String) {
        switch self {
        case .null: out += "null"
        case .bool(let value): out += value ? "true" : "false"
        case .number(let spelling): out += spelling
        case .string(let value): Self.write(value, to: &out)
        case .array(let values):
            out += "["
            for (index, value) in values.enumerated() {
                if index > 0 { out += ", " }
                value.write(to: &out)
            }
            out += "]"
        case .object(let members):
            out += "{"
            for (index, member) in members.enumerated() {
                if index > 0 { out += ", " }
                Self.write(member.name, to: &out)
                out += ": "
                member.value.write(to: &out)
            }
            out += "}"
        }
    }

    private static func write(_ value: String, to out: inout String) {
        let digits = Array("0123456789abcdef".unicodeScalars)
        out += "\""
        for scalar in value.unicodeScalars {
            switch scalar {
            case "\"": out += "\\\""
            case "\\": out += "\\\\"
            case "\n": out += "\\n"
            case "\r": out += "\\r"
            case "\t": out += "\\t"
            case "\u{8}": out += "\\b"
            case "\u{C}": out += "\\f"
            case _ where scalar.value < 0x20:
                out += "\\u00"
                out.unicodeScalars.append(digits[Int(scalar.value >> 4)])
                out.unicodeScalars.append(digits[Int(scalar.value & 15)])
            default: out.unicodeScalars.append(scalar)
            }
        }
        out += "\""
    }
}
