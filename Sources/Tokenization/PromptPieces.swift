/// A part of a prompt that a chat format makes of a conversation.
public enum PromptPiece: Sendable, Equatable {
    /// A token that the format puts there.
    case mark(String)
    /// What is said, and the format's words between.
    case said(String)

    /// Its text.
    public var text: String {
        switch self {
        case .mark(let text), .said(let text): text
        }
    }
}

/// Collects the pieces of a prompt.
struct PromptPieces {
    /// What the format writes as tokens of their own where the tokenizer has them.
    private static let marks = [
        "<think>", "</think>", "<tools>", "</tools>", "<tool_call>", "</tool_call>", "<tool_response>",
        "</tool_response>",
    ]

    private(set) var pieces: [PromptPiece] = []

    /// Puts a token there.
    mutating func mark(_ text: String) { pieces.append(.mark(text)) }

    /// Puts text there that is never a token of its own.
    mutating func say(_ text: String) {
        guard !text.isEmpty else { return }
        guard case .said(let before) = pieces.last else { return pieces.append(.said(text)) }
        pieces[pieces.count - 1] = .said(before + text)
    }

    /// Opens a turn.
    mutating func open(_ role: String) {
        mark("<role>")
        say(role)
        mark("</role>")
    }

    /// A whole turn.
    mutating func turn(_ role: String, _ content: String) {
        open(role)
        say(content)
        mark(ChatFormat.turnEnd)
    }

    /// Puts a text of the format there, in which its marks are tokens.
    mutating func write(_ text: String) {
        var rest = Substring(text)
        while let start = rest.firstIndex(of: "<") {
            say(String(rest[..<start]))
            rest = rest[start...]
            let mark = Self.marks.first { rest.hasPrefix($0) }
            if let mark { self.mark(mark) } else { say("<") }
            rest = rest.dropFirst(mark?.count ?? 1)
        }
        say(String(rest))
    }
}

extension TokenCoding {
    /// The ids of a prompt made by a chat format: its marks are tokens where the tokenizer has them, and what is said never
    /// becomes one of those, nor a special token.
    ///
    /// - Throws: `TokenizerError` when the text is too long or cannot be split.
    public func encode(_ pieces: [PromptPiece]) throws(TokenizerError) -> [UInt32] {
        var ids: [UInt32] = []
        var said = ""
        for piece in pieces {
            if case .mark(let text) = piece, let id = addedID(of: text) {
                if !said.isEmpty { ids += try encodeSaid(said) }
                said = ""
                ids.append(id)
            } else {
                said += piece.text
            }
        }
        return said.isEmpty ? ids : ids + (try encodeSaid(said))
    }
}
