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
    /// NaN, Infinity or -Infinity as it was spelled: no JSON, but Python's json module writes it.
    case nonFinite(String)

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

    /// Parses a whole document; a byte order mark in front of it is skipped. A name that an object repeats counts as it
    /// stands last. Nesting deeper than 128, a lone surrogate and invalid UTF-8 are refused.
    ///
    /// - allowsNonFinite: takes NaN, Infinity and -Infinity for values.
    /// - Throws: `JSONError` with line and column.
    public init(parsing bytes: [UInt8], allowsNonFinite: Bool = false) throws(JSONError) {
        var parser = JSONParser(bytes, allowsNonFinite: allowsNonFinite)
        self = try parser.document()
    }

    /// The member of an object with exactly this name (compared by bytes), or nil.
    public subscript(_ name: String) -> JSONValue? {
        guard case .object(let members) = self else { return nil }
        return members.first { $0.name.utf8.elementsEqual(name.utf8) }?.value
    }

    /// A number that is finite as a Double, else nil.
    public var double: Double? {
        guard case .number(let spelling) = self, spelling.utf8.count <= Self.maximumDigits,
            let number = Double(spelling), number.isFinite
        else { return nil }
        return number
    }

    /// A number that is whole and fits an Int, else nil; `1.0` and `1e2` are whole.
    public var integer: Int? {
        guard case .number(let spelling) = self, spelling.utf8.count <= Self.maximumDigits else { return nil }
        return Int(spelling) ?? Double(spelling).flatMap { Int(exactly: $0) }
    }

    /// Longest spelling of a number that is read as one.
    private static let maximumDigits = 400

    /// The value on one line with ", " and ": " between parts, as chat templates' `tojson` writes it.
    public var text: String {
        var out = ""
        write(to: &out, indent: nil)
        return out
    }

    /// The value over several lines, two blanks for each level.
    public var indentedText: String {
        var out = ""
        write(to: &out, indent: 0)
        return out
    }

    private func write(to out: inout String, indent: Int?) {
        switch self {
        case .null: out += "null"
        case .bool(let value): out += value ? "true" : "false"
        case .number(let spelling), .nonFinite(let spelling): out += spelling
        case .string(let value): out += JSONText.quoted(value, escapesSeparators: false)
        case .array(let values):
            Self.write("[", values, "]", to: &out, indent) { $0.write(to: &$1, indent: $2) }
        case .object(let members):
            Self.write("{", members, "}", to: &out, indent) {
                $1 += JSONText.quoted($0.name, escapesSeparators: false) + ": "
                $0.value.write(to: &$1, indent: $2)
            }
        }
    }

    private static func write<Part>(
        _ opening: String, _ parts: [Part], _ closing: String, to out: inout String, _ indent: Int?,
        _ part: (Part, inout String, Int?) -> Void
    ) {
        let inner = indent.map { $0 + 2 }
        out += opening
        for (index, value) in parts.enumerated() {
            if index > 0 { out += inner == nil ? ", " : "," }
            if let inner { out += "\n" + String(repeating: " ", count: inner) }
            part(value, &out, inner)
        }
        if let indent, !parts.isEmpty { out += "\n" + String(repeating: " ", count: indent) }
        out += closing
    }
}
