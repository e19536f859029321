/// Swift text with code, comments and literals told apart. What is no code, or no comment, is blank, so that lines and
/// columns stay; code within a literal is code.
struct SwiftText: Sendable {
    let code: [String]
    let comments: [String]
    let declarations: [Declaration]
    /// Words outside comments, those of literals too.
    let words: [String: Int]

    init(_ text: String) {
        var reader = LiteralReader(text)
        reader.read()
        code = Self.lines(reader.code)
        comments = Self.lines(reader.comments)
        declarations = DeclarationReader(code: reader.code, comments: comments).read()
        words = Self.count(Array(text.utf8), without: reader.comments)
    }

    private static func lines(_ bytes: [UInt8]) -> [String] {
        bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false).map {
            String(decoding: $0, as: UTF8.self)
        }
    }

    private static func count(_ bytes: [UInt8], without comments: [UInt8]) -> [String: Int] {
        var words: [String: Int] = [:]
        var start: Int?
        for index in 0...bytes.count {
            if index < bytes.count, isWord(bytes[index]), comments[index] == UInt8(ascii: " ") {
                if start == nil { start = index }
            } else if let first = start {
                words[String(decoding: bytes[first..<index], as: UTF8.self), default: 0] += 1
                start = nil
            }
        }
        return words
    }

    static func isWord(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"):
            true
        default: false
        }
    }
}

/// Goes through a text byte by byte and knows whether it is in code, a comment or a literal.
private struct LiteralReader {
    private enum Place {
        /// Code, with the parentheses open since a literal's `\(`.
        case code(depth: Int)
        case literal(quotes: Int, hashes: Int)
    }

    private let bytes: [UInt8]
    private(set) var code: [UInt8]
    private(set) var comments: [UInt8]
    private var places: [Place] = [.code(depth: 0)]
    private var index = 0

    init(_ text: String) {
        bytes = Array(text.utf8)
        let blank = bytes.map { $0 == UInt8(ascii: "\n") ? $0 : UInt8(ascii: " ") }
        code = blank
        comments = blank
    }

    private func sees(_ text: StaticString, at offset: Int = 0) -> Bool {
        let first = index + offset
        guard first + text.utf8CodeUnitCount <= bytes.count else { return false }
        for position in 0..<text.utf8CodeUnitCount where bytes[first + position] != text.utf8Start[position] {
            return false
        }
        return true
    }

    mutating func read() {
        while index < bytes.count {
            switch places.last {
            case .code(let depth): readCode(depth)
            case .literal(let quotes, let hashes): readLiteral(quotes, hashes)
            case nil: return
            }
        }
    }

    private mutating func readCode(_ depth: Int) {
        let byte = bytes[index]
        if byte != UInt8(ascii: "/"), byte != UInt8(ascii: "#"), byte != UInt8(ascii: "\"") {
            return copy(byte, depth)
        }
        if sees("//") { return skip(asComment: true) { $0.sees("\n") } }
        if sees("/*") {
            skip(asComment: true) { $0.sees("*/") }
            index += 2
            return
        }
        if sees("#/") {
            index += 2
            skip(asComment: false) { $0.sees("/#") }
            index += 2
            return
        }
        var hashes = 0
        while sees("#", at: hashes) { hashes += 1 }
        if sees("\"", at: hashes) {
            let quotes = sees("\"\"\"", at: hashes) ? 3 : 1
            index += hashes + quotes
            places.append(.literal(quotes: quotes, hashes: hashes))
            return
        }
        copy(byte, depth)
    }

    private mutating func copy(_ byte: UInt8, _ depth: Int) {
        code[index] = byte
        index += 1
        guard places.count > 1 else { return }
        if byte == UInt8(ascii: "(") { places[places.count - 1] = .code(depth: depth + 1) }
        guard byte == UInt8(ascii: ")") else { return }
        if depth == 1 { places.removeLast() } else { places[places.count - 1] = .code(depth: depth - 1) }
    }

    private mutating func readLiteral(_ quotes: Int, _ hashes: Int) {
        guard bytes[index] == UInt8(ascii: "\\") || bytes[index] == UInt8(ascii: "\"") else {
            index += 1
            return
        }
        if sees("\\") {
            var marks = 0
            while marks < hashes, sees("#", at: 1 + marks) { marks += 1 }
            guard marks == hashes else {
                index += 1
                return
            }
            index += 1 + hashes
            if sees("(") { places.append(.code(depth: 0)) } else { index += 1 }
            return
        }
        let isEnd = quotes == 3 ? sees("\"\"\"") : sees("\"")
        var marks = 0
        while isEnd, marks < hashes, sees("#", at: quotes + marks) { marks += 1 }
        guard isEnd, marks == hashes else {
            index += 1
            return
        }
        index += quotes + hashes
        places.removeLast()
    }

    private mutating func skip(asComment: Bool, until isOver: (Self) -> Bool) {
        while index < bytes.count, !isOver(self) {
            if asComment { comments[index] = bytes[index] }
            index += 1
        }
    }
}
