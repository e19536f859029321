/// `turns`: conversations of several turns, all first turns before all second ones. A turn's prompt is all that was said
/// before, with the answers that this workload makes up in place of the server's, and a question more; so every server and
/// every run gets the same prompts.
public struct TurnsWorkload: Workload {
    /// Conversations.
    public let conversations: Int
    private let turns: Int
    private let firstTokens: Int
    private let questionTokens: Int
    private let outputTokens: Int
    private let bound: UInt32
    private let seed: UInt64

    /// - firstTokens: tokens of a conversation's first question; those of the others have `questionTokens`.
    /// - outputTokens: tokens of every answer.
    public init(
        conversations: Int, turns: Int, firstTokens: Int, questionTokens: Int, outputTokens: Int,
        idsBelow bound: UInt32, seed: UInt64
    ) {
        self.conversations = conversations
        self.turns = turns
        self.firstTokens = firstTokens
        self.questionTokens = questionTokens
        self.outputTokens = outputTokens
        self.bound = bound
        self.seed = seed
    }

    /// All turns of all conversations.
    public var count: Int { conversations * turns }

    /// Longer with every turn.
    public func lengths(at index: Int) -> (input: Int, output: Int) {
        (firstTokens + index / conversations * (outputTokens + questionTokens), outputTokens)
    }

    /// The request `index`: a turn of the conversation `index % conversations`.
    public func request(at index: Int) -> PlannedRequest {
        var generator = SeededGenerator(seed: seed, stream: UInt64(index % conversations))
        let count = lengths(at: index).input
        let tokens = RandomWorkload.tokens(count, below: bound, &generator)
        return PlannedRequest(prompt: .tokens(tokens), inputTokens: count, outputTokens: outputTokens)
    }
}
