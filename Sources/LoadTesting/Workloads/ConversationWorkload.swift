import Foundation

/// `sharegpt`: the first question of recorded conversations, with as many tokens asked for as the recorded answer has.
public struct ConversationWorkload: Workload {
    /// Bytes of one turn that are used, at most.
    public static let turnBytes = 1 << 20

    private let requests: [PlannedRequest]
    /// Rows that were left out, and whether conversations are repeated.
    public let notices: [String]

    /// Chooses `count` conversations by `seed`, repeating them when there are fewer. Lengths come from `measure`, which
    /// counts tokens; `outputTokens` overrides the recorded answers' lengths. Rows that are no conversation, and those
    /// whose question is longer than `inputLimit`, are left out, and `notices` says how many and why.
    ///
    /// - Throws: when nothing is left.
    public init(
        parsing text: Data, count: Int, outputTokens: Int?, inputLimit: Int, seed: UInt64,
        measure: @Sendable (String) throws -> Int
    ) throws(LoadError) {
        let rows = try ConversationRows.read(text)
        var odd = OddRows()
        for (index, row) in rows.enumerated() {
            if case .failure(let reason) = row { odd.note(index + 1, reason.description) }
        }
        var generator = SeededGenerator(seed: seed, stream: SeedStream.order)
        var chosen: [PlannedRequest] = []
        for (index, row) in Array(rows.enumerated()).shuffled(using: &generator) where chosen.count < count {
            guard case .success(let turns) = row else { continue }
            do {
                let input = try measure(turns.question)
                guard (1...inputLimit).contains(input) else {
                    odd.note(index + 1, "has a question of more than \(inputLimit) tokens")
                    continue
                }
                let output = try outputTokens ?? measure(turns.answer)
                chosen.append(
                    PlannedRequest(prompt: .text(turns.question), inputTokens: input, outputTokens: max(1, output)))
            } catch { odd.note(index + 1, "cannot be tokenized") }
        }
        let leftOut = odd.sentence(of: rows.count, "row")
        guard !chosen.isEmpty else {
            throw LoadError(
                "none of \(rows.count) conversations has a question of at most \(inputLimit) tokens and an answer"
                    + (leftOut.map { "; \($0)" } ?? ""))
        }
        requests = (0..<count).map { chosen[$0 % chosen.count] }
        let repeated =
            chosen.count < count ? "\(chosen.count) conversations are repeated to make \(count) requests" : nil
        notices = [leftOut, repeated].compactMap(\.self)
    }

    /// How many were asked for.
    public var count: Int { requests.count }

    /// The request `index`.
    public func request(at index: Int) -> PlannedRequest { requests[index] }

    /// Tokens of a text when no tokenizer is at hand: four bytes each.
    public static func estimate(_ text: String) -> Int { (text.utf8.count + 3) / 4 }
}
