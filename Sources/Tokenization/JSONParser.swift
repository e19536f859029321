/// A strict RFC 8259 parser over bytes, with a limit on nesting.
struct JSONParser {
    private static let maximumDepth = 128
    private let bytes: [UInt8]
    private var offset = 0

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    mutating func document() throws(TokenizerError) -> JSONValue {
        let result = try value(depth: 0)
        skipSpace()
        guard offset == bytes.count else { throw failure("is followed by more text") }
        return result
    }

    private func failure(_ what: String) -> TokenizerError {
        TokenizerError(.malformed, "The JSON text \(what) at byte \(offset).")
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

    private mutating func value(depth: Int) throws(TokenizerError) -> JSONValue {
        guard depth <= Self.maximumDepth else { throw failure("is nested deeper than \(Self.maximumDepth)") }
        skipSpace()
        switch current {
        case UInt8(ascii: "{"): return try object(depth: depth)
        case UInt8(ascii: "["): return try array(depth: depth)
        case UInt8(ascii: "\""): return .string(try string())
        case UInt8(ascii: "t"): return try literal("true", .bool(true))
        case UInt8(ascii: "f"): return try literal("false", .bool(false))
        case UInt8(ascii: "n"): return try literal("null", .null)
        default: return .number(try number())
        }
    }

    private mutating func literal(_ text: StaticString, _ value: JSONValue) throws(TokenizerError) -> JSONValue {
        let count = text.utf8CodeUnitCount
        guard bytes.count - offset >= count,
            bytes[offset..<offset + count].elementsEqual(UnsafeBufferPointer(start: text.utf8Start, count: count))
        else { throw failure("has an unknown word") }
        offset += count
        return value
    }

    private mutating func array(depth: Int) throws(TokenizerError) -> JSONValue {
        offset += 1
        var values: [JSONValue] = []
        skipSpace()
        if take(UInt8(ascii: "]")) { return .array(values) }
        while true {
            values.append(try value(depth: depth + 1))
            skipSpace()
            if take(UInt8(ascii: "]")) { return .array(values) }
            guard take(UInt8(ascii: ",")) else { throw failure("lacks a comma or bracket in an array") }
        }
    }

    private mutating func object(depth: Int) throws(TokenizerError) -> JSONValue {
        offset += 1
        var members: [JSONValue.Member] = []
        var names = Set<[UInt8]>()
        skipSpace()
        if take(UInt8(ascii: "}")) { return .object(members) }
        while true {
            skipSpace()
            guard current == UInt8(ascii: "\"") else { throw failure("lacks a name in an object") }
            let name = try string()
            guard names.insert(Array(name.utf8)).inserted else { throw failure("repeats a name of an object") }
            skipSpace()
            guard take(UInt8(ascii: ":")) else { throw failure("lacks a colon in an object") }
            members.append(JSONValue.Member(name, try value(depth: depth + 1)))
            skipSpace()
            if take(UInt8(ascii: "}")) { return .object(members) }
            guard take(UInt8(ascii: ",")) else { throw failure("lacks a comma or brace in an object") }
        }
    }

    private mutating func digits() throws(TokenizerError) {
        let start = offset
        while let byte = current, (0x30...0x39).contains(byte) { offset += 1 }
        guard offset > start else { throw failure("has something that is no value") }
    }

    private mutating func number() throws(TokenizerError) -> String {
        let start = offset
        _ = take(UInt8(ascii: "-"))
        if !take(UInt8(ascii: "0")) { try digits() }
        if take(UInt8(ascii: ".")) { try digits() }
        if take(UInt8(ascii: "e")) || take(UInt8(ascii: "E")) {
            if !take(UInt8(ascii: "+")) { _ = take(UInt8(ascii: "-")) }
            try digits()
        }
        return String(decoding: bytes[start..<offset], as: UTF8.self)
    }

    private mutating func string() throws(TokenizerError) -> String {
        offset += 1
        var out: [UInt8] = []
        while true {
            guard let byte = current else { throw failure("ends inside a string") }
            switch byte {
            case UInt8(ascii: "\""):
                offset += 1
                guard let text = String(validating: out, as: UTF8.self) else {
                    throw failure("has a string that is not UTF-8, ending")
                }
                return text
            case UInt8(ascii: "\\"):
                offset += 1
                try escape(into: &out)
            case 0..<0x20: throw failure("has a control character in a string")
            default:
                out.append(byte)
                offset += 1
            }
        }
    }

    private mutating func escape(into out: inout [UInt8]) throws(TokenizerError) {
        guard let byte = current else { throw failure("ends inside an escape") }
        offset += 1
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): out.append(byte)
        case UInt8(ascii: "b"): out.append(0x08)
        case UInt8(ascii: "f"): out.append(0x0C)
        case UInt8(ascii: "n"): out.append(0x0A)
        case UInt8(ascii: "r"): out.append(0x0D)
        case UInt8(ascii: "t"): out.append(0x09)
        case UInt8(ascii: "u"):
            var code = try hexadecimal()
            if (0xD800..<0xDC00).contains(code) {
                guard take(UInt8(ascii: "\\")), take(UInt8(ascii: "u")) else { throw failure("has a lone surrogate") }
                let low = try hexadecimal()
                guard (0xDC00..<0xE000).contains(low) else { throw failure("has a lone surrogate") }
                code = 0x10000 + (code - 0xD800) << 10 + (low - 0xDC00)
            }
            guard let scalar = Unicode.Scalar(code) else { throw failure("has a lone surrogate") }
            out.append(contentsOf: UTF8.encode(scalar) ?? UTF8.encodedReplacementCharacter)
        default: throw failure("has an unknown escape")
        }
    }

    private mutating func hexadecimal() throws(TokenizerError) -> UInt32 {
        var code: UInt32 = 0
        for _ in 0..<4 {
            guard let byte = current, let digit = Character(Unicode.Scalar(byte)).hexDigitValue else {
                throw failure("has a broken \\u escape")
            }
            code = code << 4 | UInt32(digit)
            offset += 1
        }
        return code
    }
}
