/// A strict RFC 8259 parser over bytes, with a limit on nesting.
struct JSONParser {
    private static let maximumDepth = 128
    private let bytes: [UInt8]
    private let allowsNonFinite: Bool
    private var offset = 0

    init(_ bytes: [UInt8], allowsNonFinite: Bool) {
        self.bytes = bytes
        self.allowsNonFinite = allowsNonFinite
    }

    mutating func document() throws(JSONError) -> JSONValue {
        if bytes.starts(with: [0xEF, 0xBB, 0xBF]) { offset = 3 }
        if bytes.starts(with: [0xFF, 0xFE]) || bytes.starts(with: [0xFE, 0xFF]) {
            throw failure("the text is UTF-16; JSON is UTF-8")
        }
        let result = try value(depth: 0)
        skipSpace()
        guard offset == bytes.count else { throw failure("more text follows the value") }
        return result
    }

    private func failure(_ reason: String, at place: Int? = nil) -> JSONError {
        JSONError(reason, bytes, at: place ?? offset)
    }

    private var current: UInt8? { offset < bytes.count ? bytes[offset] : nil }

    private mutating func skipSpace() {
        while let byte = current, byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 { offset += 1 }
    }

    private mutating func take(_ byte: UInt8) -> Bool {
        guard current == byte else { return false }
        offset += 1
        return true
    }

    private mutating func take(_ text: StaticString) -> Bool {
        let count = text.utf8CodeUnitCount
        guard bytes.count - offset >= count,
            bytes[offset..<offset + count].elementsEqual(UnsafeBufferPointer(start: text.utf8Start, count: count))
        else { return false }
        offset += count
        return true
    }

    private mutating func value(depth: Int) throws(JSONError) -> JSONValue {
        guard depth <= Self.maximumDepth else { throw failure("values are nested deeper than \(Self.maximumDepth)") }
        skipSpace()
        switch current {
        case UInt8(ascii: "{"): return try object(depth: depth)
        case UInt8(ascii: "["): return try array(depth: depth)
        case UInt8(ascii: "\""): return .string(try string())
        case UInt8(ascii: "t") where take("true"): return .bool(true)
        case UInt8(ascii: "f") where take("false"): return .bool(false)
        case UInt8(ascii: "n") where take("null"): return .null
        case UInt8(ascii: "N") where allowsNonFinite && take("NaN"): return .nonFinite("NaN")
        case UInt8(ascii: "I") where allowsNonFinite && take("Infinity"): return .nonFinite("Infinity")
        case UInt8(ascii: "-") where allowsNonFinite && take("-Infinity"): return .nonFinite("-Infinity")
        default: return .number(try number())
        }
    }

    private mutating func array(depth: Int) throws(JSONError) -> JSONValue {
        offset += 1
        var values: [JSONValue] = []
        skipSpace()
        if take(UInt8(ascii: "]")) { return .array(values) }
        while true {
            values.append(try value(depth: depth + 1))
            skipSpace()
            if take(UInt8(ascii: "]")) { return .array(values) }
            guard take(UInt8(ascii: ",")) else { throw failure("a comma or ] is missing in an array") }
        }
    }

    private mutating func object(depth: Int) throws(JSONError) -> JSONValue {
        offset += 1
        var members = JSONMembers()
        skipSpace()
        if take(UInt8(ascii: "}")) { return .object([]) }
        while true {
            skipSpace()
            guard current == UInt8(ascii: "\"") else { throw failure("a name in quotes is missing in an object") }
            let name = try string()
            skipSpace()
            guard take(UInt8(ascii: ":")) else { throw failure("a colon is missing behind a name") }
            members.set(name, try value(depth: depth + 1))
            skipSpace()
            if take(UInt8(ascii: "}")) { return .object(members.list) }
            guard take(UInt8(ascii: ",")) else { throw failure("a comma or } is missing in an object") }
        }
    }

    private mutating func digits(of start: Int) throws(JSONError) {
        let first = offset
        while let byte = current, (0x30...0x39).contains(byte) { offset += 1 }
        guard offset > first else { throw failure("a value is missing or is none that JSON has", at: start) }
    }

    private mutating func number() throws(JSONError) -> String {
        let start = offset
        _ = take(UInt8(ascii: "-"))
        if !take(UInt8(ascii: "0")) { try digits(of: start) }
        if take(UInt8(ascii: ".")) { try digits(of: start) }
        if take(UInt8(ascii: "e")) || take(UInt8(ascii: "E")) {
            if !take(UInt8(ascii: "+")) { _ = take(UInt8(ascii: "-")) }
            try digits(of: start)
        }
        return String(decoding: bytes[start..<offset], as: UTF8.self)
    }

    /// Bytes of a string up to its end or an escape are taken as they lie.
    private mutating func string() throws(JSONError) -> String {
        let opening = offset
        offset += 1
        var out: [UInt8] = []
        while true {
            let start = offset
            while offset < bytes.count, bytes[offset] >= 0x20, bytes[offset] != UInt8(ascii: "\""),
                bytes[offset] != UInt8(ascii: "\\")
            { offset += 1 }
            guard let byte = current else { throw failure("a string has no end", at: opening) }
            guard byte >= 0x20 else { throw failure("a string holds a control character that is not escaped") }
            if byte == UInt8(ascii: "\"") {
                let text =
                    out.isEmpty
                    ? String(validating: bytes[start..<offset], as: UTF8.self)
                    : String(validating: out + bytes[start..<offset], as: UTF8.self)
                guard let text else { throw failure("a string is not UTF-8", at: opening) }
                offset += 1
                return text
            }
            out += bytes[start..<offset]
            try escape(into: &out)
        }
    }

    private mutating func escape(into out: inout [UInt8]) throws(JSONError) {
        let start = offset
        offset += 1
        guard let byte = current else { throw failure("a string has no end") }
        offset += 1
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): out.append(byte)
        case UInt8(ascii: "b"): out.append(0x08)
        case UInt8(ascii: "f"): out.append(0x0C)
        case UInt8(ascii: "n"): out.append(0x0A)
        case UInt8(ascii: "r"): out.append(0x0D)
        case UInt8(ascii: "t"): out.append(0x09)
        case UInt8(ascii: "u"):
            var code = try hexadecimal(of: start)
            if (0xD800..<0xDC00).contains(code) {
                guard take("\\u") else { throw failure("a surrogate stands alone", at: start) }
                let low = try hexadecimal(of: start)
                guard (0xDC00..<0xE000).contains(low) else { throw failure("a surrogate stands alone", at: start) }
                code = 0x10000 + (code - 0xD800) << 10 + (low - 0xDC00)
            }
            guard let scalar = Unicode.Scalar(code) else { throw failure("a surrogate stands alone", at: start) }
            out.append(contentsOf: UTF8.encode(scalar) ?? UTF8.encodedReplacementCharacter)
        default: throw failure("an escape is none that JSON has", at: start)
        }
    }

    private mutating func hexadecimal(of start: Int) throws(JSONError) -> UInt32 {
        var code: UInt32 = 0
        for _ in 0..<4 {
            guard let byte = current, let digit = Character(Unicode.Scalar(byte)).hexDigitValue, byte < 0x80 else {
                throw failure("four hexadecimal digits are missing behind \\u", at: start)
            }
            code = code << 4 | UInt32(digit)
            offset += 1
        }
        return code
    }
}
