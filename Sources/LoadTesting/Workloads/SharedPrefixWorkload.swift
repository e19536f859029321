/// `shared-prefix`: groups of requests that begin with the same tokens, each with a question of its own, in mixed order.
public struct SharedPrefixWorkload: Workload {
    private let groupCount: Int
    private let prefixTokens: Int
    private let questionTokens: Int
    private let outputTokens: Int
    private let bound: UInt32
    private let seed: UInt64
    /// Group of each request.
    private let groups: [Int]

    /// `groupCount` prefixes of `prefixTokens`, `perGroup` requests on each.
    public init(
        groupCount: Int, perGroup: Int, prefixTokens: Int, questionTokens: Int, outputTokens: Int,
        idsBelow bound: UInt32,
        seed: UInt64
    ) {
        self.groupCount = groupCount
        self.prefixTokens = prefixTokens
        self.questionTokens = questionTokens
        self.outputTokens = outputTokens
        self.bound = bound
        self.seed = seed
        var generator = SeededGenerator(seed: seed, stream: SeedStream.order)
        groups = (0..<groupCount * perGroup).map { $0 % groupCount }.shuffled(using: &generator)
    }

    /// All requests of all groups.
    public var count: Int { groups.count }

    /// The same for all requests.
    public func lengths(at index: Int) -> (input: Int, output: Int) { (prefixTokens + questionTokens, outputTokens) }

    /// The request `index`.
    public func request(at index: Int) -> PlannedRequest {
        var prefix = SeededGenerator(seed: seed, stream: SeedStream.prefix | UInt64(groups[index]))
        var question = SeededGenerator(seed: seed, stream: UInt64(index))
        let tokens =
            RandomWorkload.tokens(prefixTokens, below: bound, &prefix)
            + RandomWorkload.tokens(questionTokens, below: bound, &question)
        return PlannedRequest(prompt: .tokens(tokens), inputTokens: tokens.count, outputTokens: outputTokens)
    }
}
