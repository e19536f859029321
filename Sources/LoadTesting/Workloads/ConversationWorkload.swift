import Foundation

/// `sharegpt`: the first question of recorded conversations, with as many tokens asked for as the recorded answer has.
/// The file is a JSON array of `{"conversations": [{"from": …, "value": text}, …]}`.
public struct ConversationWorkload: Workload {
    /// Bytes of one turn that are used, at most.
    public static let turnBytes = 1 << 20

    private struct Conversation: Decodable {
        struct Turn: Decodable {
            let value: String
        }

        let conversations: [Turn]?
    }

    private let requests: [PlannedRequest]

    /// Chooses `count` conversations by `seed`, repeating them when there are fewer. Lengths come from `measure`, which
    /// counts tokens; `outputTokens` overrides the recorded answers' lengths. Questions longer than `inputLimit` and
    /// conversations of fewer than two turns are passed over.
    public init(
        parsing text: Data, count: Int, outputTokens: Int?, inputLimit: Int, seed: UInt64,
        measure: @Sendable (String) throws -> Int
    ) throws(LoadError) {
        let all: [Conversation]
        do { all = try JSONDecoder().decode([Conversation].self, from: text) } catch {
            throw LoadError("not a file of conversations: \(JSONComplaint.sentence(error))")
        }
        var generator = SeededGenerator(seed: seed, stream: SeedStream.order)
        var chosen: [PlannedRequest] = []
        for conversation in all.shuffled(using: &generator) where chosen.count < count {
            guard let turns = conversation.conversations, turns.count >= 2, !turns[0].value.isEmpty,
                turns[0].value.utf8.count <= Self.turnBytes, turns[1].value.utf8.count <= Self.turnBytes
            else { continue }
            do {
                let input = try measure(turns[0].value)
                guard (1...inputLimit).contains(input) else { continue }
                let output = try outputTokens ?? measure(turns[1].value)
                chosen.append(
                    PlannedRequest(prompt: .text(turns[0].value), inputTokens: input, outputTokens: max(1, output)))
            } catch { throw LoadError("a conversation cannot be tokenized: \(error)") }
        }
        guard !chosen.isEmpty else {
            throw LoadError(
                "none of \(all.count) conversations has a question of at most \(inputLimit) tokens and an answer")
        }
        requests = (0..<count).map { chosen[$0 % chosen.count] }
    }

    /// How many were asked for.
    public var count: Int { requests.count }

    /// The request `index`.
    public func request(at index: Int) -> PlannedRequest { requests[index] }

    /// Tokens of a text when no tokenizer is at hand: four bytes each.
    public static func estimate(_ text: String) -> Int { (text.utf8.count + 3) / 4 }
}
