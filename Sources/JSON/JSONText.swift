/// Strings in JSON.
public enum JSONText {
    /// The text in quotes.
    ///
    /// - escapesSeparators: also escapes U+0085, U+2028 and U+2029, which JSON may hold as they are but at which some
    ///   clients of event streams split.
    public static func quoted(_ text: String, escapesSeparators: Bool = true) -> String {
        var bytes: [UInt8] = []
        append(text, to: &bytes, escapesSeparators: escapesSeparators)
        return String(decoding: bytes, as: UTF8.self)
    }

    /// Appends the text in quotes; runs that need no escape are copied as a whole.
    static func append(_ text: String, to bytes: inout [UInt8], escapesSeparators: Bool = true) {
        bytes.append(UInt8(ascii: "\""))
        var text = text
        text.withUTF8 { text in
            var start = 0
            var index = 0
            while index < text.count {
                let width = escapedWidth(text, index, escapesSeparators)
                if width == 0 {
                    index += 1
                    continue
                }
                bytes.append(contentsOf: UnsafeBufferPointer(rebasing: text[start..<index]))
                appendEscape(text, index, width, to: &bytes)
                index += width
                start = index
            }
            bytes.append(contentsOf: UnsafeBufferPointer(rebasing: text[start...]))
        }
        bytes.append(UInt8(ascii: "\""))
    }

    /// Bytes of the character at `index` if it must be escaped, else 0.
    private static func escapedWidth(
        _ text: UnsafeBufferPointer<UInt8>, _ index: Int, _ escapesSeparators: Bool
    ) -> Int {
        let byte = text[index]
        if byte < 0x20 || byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "\\") { return 1 }
        guard escapesSeparators else { return 0 }
        if byte == 0xC2 { return index + 1 < text.count && text[index + 1] == 0x85 ? 2 : 0 }
        guard byte == 0xE2, index + 2 < text.count, text[index + 1] == 0x80 else { return 0 }
        return text[index + 2] & 0xFE == 0xA8 ? 3 : 0
    }

    private static func appendEscape(
        _ text: UnsafeBufferPointer<UInt8>, _ index: Int, _ width: Int, to bytes: inout [UInt8]
    ) {
        switch (width, text[index]) {
        case (2, _): bytes.append(contentsOf: "\\u0085".utf8)
        case (3, _): bytes.append(contentsOf: (text[index + 2] == 0xA8 ? "\\u2028" : "\\u2029").utf8)
        case (_, UInt8(ascii: "\"")): bytes.append(contentsOf: "\\\"".utf8)
        case (_, UInt8(ascii: "\\")): bytes.append(contentsOf: "\\\\".utf8)
        case (_, UInt8(ascii: "\n")): bytes.append(contentsOf: "\\n".utf8)
        case (_, UInt8(ascii: "\r")): bytes.append(contentsOf: "\\r".utf8)
        case (_, UInt8(ascii: "\t")): bytes.append(contentsOf: "\\t".utf8)
        case (_, 0x08): bytes.append(contentsOf: "\\b".utf8)
        case (_, 0x0C): bytes.append(contentsOf: "\\f".utf8)
        case (_, let byte):
            bytes.append(contentsOf: "\\u00".utf8)
            for digit in [byte >> 4, byte & 15] {
                bytes.append(digit < 10 ? UInt8(ascii: "0") + digit : UInt8(ascii: "a") + digit - 10)
            }
        }
    }
}
