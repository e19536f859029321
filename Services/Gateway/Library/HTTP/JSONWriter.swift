/// Writes JSON straight into bytes, without a tree in between: a token's event costs one buffer.
///
/// Commas come by themselves; nesting is the caller's to keep. Text is escaped so that no line break of any convention is
/// left in it (U+0085, U+2028 and U+2029 too, at which some clients of event streams split).
package struct JSONWriter {
    /// What was written.
    package var bytes: [UInt8]
    private var needsComma = false

    /// A writer that appends to `bytes`.
    package init(into bytes: [UInt8] = []) { self.bytes = bytes }

    /// Opens an object.
    package mutating func beginObject() { open(UInt8(ascii: "{")) }

    /// Closes an object.
    package mutating func endObject() { close(UInt8(ascii: "}")) }

    /// Opens an array.
    package mutating func beginArray() { open(UInt8(ascii: "[")) }

    /// Closes an array.
    package mutating func endArray() { close(UInt8(ascii: "]")) }

    /// The name of the next value; plain ASCII that needs no escape.
    package mutating func name(_ name: StaticString) {
        comma()
        bytes.append(UInt8(ascii: "\""))
        bytes.append(contentsOf: UnsafeBufferPointer(start: name.utf8Start, count: name.utf8CodeUnitCount))
        bytes.append(UInt8(ascii: "\""))
        bytes.append(UInt8(ascii: ":"))
        needsComma = false
    }

    /// The name of the next value, any text.
    package mutating func name(_ name: String) {
        value(name)
        bytes.append(UInt8(ascii: ":"))
        needsComma = false
    }

    /// A text.
    package mutating func value(_ text: String) {
        comma()
        bytes.append(UInt8(ascii: "\""))
        var text = text
        text.withUTF8 { appendEscaped($0) }
        bytes.append(UInt8(ascii: "\""))
    }

    /// A whole number.
    package mutating func value(_ number: Int) {
        comma()
        bytes.append(contentsOf: String(number).utf8)
    }

    /// A number; what JSON cannot say (an impossible token's logprob) becomes -9999, as OpenAI's interface has it.
    package mutating func value(_ number: Float) {
        comma()
        bytes.append(contentsOf: (number.isFinite ? number.description : "-9999.0").utf8)
    }

    /// A number of seconds or the like; it must be finite.
    package mutating func value(_ number: Double) {
        comma()
        bytes.append(contentsOf: (number.isFinite ? number.description : "0").utf8)
    }

    /// True or false.
    package mutating func value(_ flag: Bool) {
        comma()
        bytes.append(contentsOf: (flag ? "true" : "false").utf8)
    }

    /// Null.
    package mutating func null() {
        comma()
        bytes.append(contentsOf: "null".utf8)
    }

    /// Whole numbers as an array.
    package mutating func value(_ numbers: some Sequence<Int>) {
        beginArray()
        for number in numbers { value(number) }
        endArray()
    }

    /// JSON that was written before.
    package mutating func raw(_ json: [UInt8]) {
        comma()
        bytes.append(contentsOf: json)
    }

    private mutating func open(_ byte: UInt8) {
        comma()
        bytes.append(byte)
        needsComma = false
    }

    private mutating func close(_ byte: UInt8) {
        bytes.append(byte)
        needsComma = true
    }

    private mutating func comma() {
        if needsComma { bytes.append(UInt8(ascii: ",")) }
        needsComma = true
    }

    /// Copies runs that need no escape as a whole.
    private mutating func appendEscaped(_ text: UnsafeBufferPointer<UInt8>) {
        var start = 0
        var index = 0
        while index < text.count {
            let width = Self.escapedWidth(text, index)
            if width == 0 {
                index += 1
                continue
            }
            bytes.append(contentsOf: UnsafeBufferPointer(rebasing: text[start..<index]))
            appendEscape(text, index, width)
            index += width
            start = index
        }
        bytes.append(contentsOf: UnsafeBufferPointer(rebasing: text[start...]))
    }

    /// Bytes of the character at `index` if it must be escaped, else 0.
    private static func escapedWidth(_ text: UnsafeBufferPointer<UInt8>, _ index: Int) -> Int {
        let byte = text[index]
        if byte < 0x20 || byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "\\") { return 1 }
        if byte == 0xC2 { return index + 1 < text.count && text[index + 1] == 0x85 ? 2 : 0 }
        guard byte == 0xE2, index + 2 < text.count, text[index + 1] == 0x80 else { return 0 }
        return text[index + 2] & 0xFE == 0xA8 ? 3 : 0
    }

    private mutating func appendEscape(_ text: UnsafeBufferPointer<UInt8>, _ index: Int, _ width: Int) {
        switch (width, text[index]) {
        case (2, _): bytes.append(contentsOf: "\\u0085".utf8)
        case (3, _): bytes.append(contentsOf: (text[index + 2] == 0xA8 ? "\\u2028" : "\\u2029").utf8)
        case (_, UInt8(ascii: "\"")): bytes.append(contentsOf: "\\\"".utf8)
        case (_, UInt8(ascii: "\\")): bytes.append(contentsOf: "\\\\".utf8)
        case (_, UInt8(ascii: "\n")): bytes.append(contentsOf: "\\n".utf8)
        case (_, UInt8(ascii: "\r")): bytes.append(contentsOf: "\\r".utf8)
        case (_, UInt8(ascii: "\t")): bytes.append(contentsOf: "\\t".utf8)
        case (_, let byte):
            bytes.append(contentsOf: "\\u00".utf8)
            for digit in [byte >> 4, byte & 15] {
                bytes.append(digit < 10 ? UInt8(ascii: "0") + digit : UInt8(ascii: "a") + digit - 10)
            }
        }
    }
}
