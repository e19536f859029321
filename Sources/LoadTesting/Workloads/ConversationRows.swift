import Foundation

/// The first question of a recorded conversation and its answer.
struct RecordedTurns: Sendable, Equatable {
    let question: String
    let answer: String
}

/// Why a row of a data set cannot be used; `description` follows "1 row".
struct OddRow: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) { self.description = description }
}

/// A file of conversations: a JSON array, JSON Lines or one object; rows in ShareGPT's form (`conversations` of `from`
/// and `value`) or OpenAI's (`messages` of `role` and `content`).
enum ConversationRows {
    private static let people = ["human", "user", "prompter"]
    private static let bystanders = ["system", "developer", "tool", "function"]

    /// Each row of a file as it is, or the reason why it cannot be used.
    static func read(_ text: Data) throws(LoadError) -> [Result<RecordedTurns, OddRow>] {
        let text = text.starts(with: [0xEF, 0xBB, 0xBF]) ? text.dropFirst(3) : text
        let first = text.first { ![9, 10, 13, 32].contains($0) }
        if first == UInt8(ascii: "[") {
            guard let rows = value(text) as? [Any] else {
                throw LoadError("not a file of conversations: it begins like a JSON array and is none")
            }
            return rows.map(turns)
        }
        if first == UInt8(ascii: "{"), let row = value(text) { return [turns(row)] }
        return text.split(separator: 10).filter { $0.contains { ![9, 13, 32].contains($0) } }.map { line in
            guard let row = value(line) else { return .failure(OddRow("is not JSON")) }
            return turns(row)
        }
    }

    private static func value(_ text: Data) -> Any? {
        try? JSONSerialization.jsonObject(with: Data(text), options: .fragmentsAllowed)
    }

    private static func turns(_ row: Any) -> Result<RecordedTurns, OddRow> {
        do throws(OddRow) { return .success(try recorded(row)) } catch { return .failure(error) }
    }

    private static func recorded(_ row: Any) throws(OddRow) -> RecordedTurns {
        guard let object = row as? [String: Any] else { throw OddRow("is no object") }
        guard let list = object["conversations"] ?? object["messages"] ?? object["conversation"] else {
            throw OddRow("has neither conversations nor messages")
        }
        guard let all = list as? [Any] else { throw OddRow("has turns that are no list") }
        let turns = all.compactMap { $0 as? [String: Any] }
        guard turns.count == all.count else { throw OddRow("has a turn that is no object") }
        let spoken = turns.filter { !bystanders.contains(role($0)) }
        guard let start = spoken.firstIndex(where: { role($0).isEmpty || people.contains(role($0)) }) else {
            throw OddRow("has no question")
        }
        guard start + 1 < spoken.count, !people.contains(role(spoken[start + 1])) else { throw OddRow("has no answer") }
        guard let question = content(spoken[start]) else { throw OddRow("has a question that is no text") }
        guard let answer = content(spoken[start + 1]) else { throw OddRow("has an answer that is no text") }
        guard !question.isEmpty else { throw OddRow("has an empty question") }
        guard max(question.utf8.count, answer.utf8.count) <= ConversationWorkload.turnBytes else {
            throw OddRow("has a turn of more than \(ConversationWorkload.turnBytes) bytes")
        }
        return RecordedTurns(question: question, answer: answer)
    }

    private static func role(_ turn: [String: Any]) -> String {
        ((turn["from"] ?? turn["role"]) as? String)?.lowercased() ?? ""
    }

    /// A text, or the text parts of a list.
    private static func content(_ turn: [String: Any]) -> String? {
        switch turn["value"] ?? turn["content"] {
        case let text as String: return text
        case let parts as [[String: Any]]:
            let texts = parts.compactMap { $0["text"] as? String }
            return texts.isEmpty ? nil : texts.joined()
        default: return nil
        }
    }
}
