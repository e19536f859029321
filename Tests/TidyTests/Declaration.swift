/// A declaration as its text has it; parameters, types and bodies are not understood.
struct Declaration: Sendable {
    let keyword: String
    let name: String
    /// Modifiers and attributes, without what stands in their parentheses.
    let modifiers: Set<String>
    /// Counted from 1.
    let line: Int
    /// Words and signs between the name and the body.
    let signature: [String]
    /// Lines from the keyword to the closing brace, when there is a body.
    let lineCount: Int
    /// Words of the body, each once.
    let bodyWords: Set<String>
    /// The comment above, lines joined by spaces.
    let documentation: String

    var isFunction: Bool { ["func", "init", "subscript"].contains(keyword) }
    var isType: Bool { ["struct", "class", "enum", "protocol", "actor"].contains(keyword) }
    var isPublic: Bool { modifiers.contains("public") }
    var isSeenOutsideItsModule: Bool { isPublic || modifiers.contains("package") }
    var isHidden: Bool { modifiers.contains("private") || modifiers.contains("fileprivate") }

    /// Whether it throws: the word stands outside its parameters.
    var canThrow: Bool {
        var depth = 0
        for word in signature {
            if word == "(" { depth += 1 }
            if word == ")" { depth -= 1 }
            if word == "throws", depth == 0 { return true }
        }
        return false
    }
}

/// Finds the declarations of a text whose comments and literals are blank.
struct DeclarationReader {
    private struct Token {
        let text: String
        let line: Int
        let startsLine: Bool
    }

    private static let keywords: Set = [
        "func", "init", "subscript", "var", "let", "struct", "class", "enum", "protocol", "actor", "typealias",
    ]
    private static let modifiers: Set = [
        "public", "package", "internal", "private", "fileprivate", "open", "static", "final", "mutating", "nonmutating",
        "nonisolated", "override", "indirect", "convenience", "required", "lazy", "weak", "unowned", "isolated",
    ]
    private static let continuing: Set = ["async", "throws", "rethrows", "where", "{", ">", "-"]

    private let tokens: [Token]
    private let comments: [String]

    init(code: [UInt8], comments: [String]) {
        var tokens: [Token] = []
        var line = 1
        var startsLine = true
        var index = 0
        while index < code.count {
            let first = index
            if code[index] == UInt8(ascii: "\n") {
                line += 1
                startsLine = true
            } else if SwiftText.isWord(code[index]) {
                while index + 1 < code.count, SwiftText.isWord(code[index + 1]) { index += 1 }
            }
            index += 1
            guard code[first] != UInt8(ascii: "\n"), code[first] != UInt8(ascii: " ") else { continue }
            let text = String(decoding: code[first..<index], as: UTF8.self)
            tokens.append(Token(text: text, line: line, startsLine: startsLine))
            startsLine = false
        }
        self.tokens = tokens
        self.comments = comments
    }

    func read() -> [Declaration] {
        var declarations: [Declaration] = []
        var modifiers: Set<String> = []
        var firstLine: Int?
        var index = 0
        while index < tokens.count {
            let token = tokens[index]
            if token.text == "@" || Self.modifiers.contains(token.text) {
                firstLine = firstLine ?? token.line
                let name = token.text == "@" ? index + 1 : index
                modifiers.insert(text(name))
                index = text(name + 1) == "(" ? end(of: name + 1) + 1 : name + 1
                // `class func`
            } else if token.text == "class", ["func", "var"].contains(text(index + 1)) {
                index += 1
            } else if Self.keywords.contains(token.text), text(index - 1) != ".", text(index - 1) != ":" {
                declarations.append(declaration(at: index, modifiers, firstLine ?? token.line))
                modifiers = []
                firstLine = nil
                index += 1
            } else {
                modifiers = []
                firstLine = nil
                index += 1
            }
        }
        return declarations
    }

    private func text(_ index: Int) -> String { tokens.indices.contains(index) ? tokens[index].text : "" }

    private func declaration(at start: Int, _ modifiers: Set<String>, _ firstLine: Int) -> Declaration {
        let keyword = text(start)
        let isNamed = keyword != "init" && keyword != "subscript"
        var name = isNamed ? start + 1 : start
        if text(name) == "`" { name += 1 }
        let isType = ["struct", "class", "enum", "protocol", "actor"].contains(keyword)
        var signature: [String] = []
        var body: ClosedRange<Int>?
        var index = name + 1
        while index < tokens.count, isType || keyword == "func" || !isNamed {
            let token = tokens[index]
            if token.text == "{" {
                body = index...end(of: index)
                break
            }
            if token.text == "}" || (token.startsLine && !isType && !Self.continuing.contains(token.text)) { break }
            let last = ["(", "["].contains(token.text) ? end(of: index) : index
            signature += tokens[index...last].map(\.text)
            index = last + 1
        }
        let lastLine = body.map { tokens[$0.upperBound].line } ?? tokens[start].line
        return Declaration(
            keyword: keyword, name: text(name), modifiers: modifiers, line: tokens[start].line, signature: signature,
            lineCount: lastLine - tokens[start].line + 1,
            bodyWords: Set(body.map { tokens[$0].map(\.text) } ?? []),
            documentation: documentation(above: firstLine))
    }

    /// The token that closes what the one at `start` opens.
    private func end(of start: Int) -> Int {
        var depth = 0
        for index in start..<tokens.count {
            switch tokens[index].text {
            case "(", "[", "{": depth += 1
            case ")", "]", "}":
                depth -= 1
                if depth == 0 { return index }
            default: break
            }
        }
        return tokens.count - 1
    }

    private func documentation(above line: Int) -> String {
        var lines: [String] = []
        var index = line - 2
        while index >= 0, let text = Self.trimmed(comments[index]) {
            lines.insert(text, at: 0)
            index -= 1
        }
        return lines.joined(separator: " ")
    }

    private static func trimmed(_ comment: String) -> String? {
        let text = comment.drop { $0 == " " }
        return text.hasPrefix("///") ? String(text.dropFirst(3).drop { $0 == " " }) : nil
    }
}
