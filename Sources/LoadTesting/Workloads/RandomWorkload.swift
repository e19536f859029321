/// `random` (text) and `random-ids`: requests of random content and random lengths.
public struct RandomWorkload: Workload {
    /// What prompts are made of.
    public enum Content: Sendable {
        /// Token ids below this bound.
        case ids(below: UInt32)
        /// English words, cut to a number of tokens by `fit`.
        case text(fit: @Sendable (_ text: String, _ tokens: Int) -> String)
    }

    /// How many requests.
    public let count: Int
    private let content: Content
    private let input: LengthRange
    private let output: LengthRange
    private let seed: UInt64

    /// Requests with prompts of `input` and answers of `output` tokens.
    public init(count: Int, content: Content, input: LengthRange, output: LengthRange, seed: UInt64) {
        self.count = count
        self.content = content
        self.input = input
        self.output = output
        self.seed = seed
    }

    /// The request `index`.
    public func request(at index: Int) -> PlannedRequest {
        var generator = SeededGenerator(seed: seed, stream: UInt64(index))
        let inputTokens = input.pick(&generator)
        let outputTokens = output.pick(&generator)
        let prompt: PlannedRequest.Prompt =
            switch content {
            case .ids(let bound): .tokens(Self.tokens(inputTokens, below: bound, &generator))
            case .text(let fit): .text(fit(Self.words(inputTokens, &generator), inputTokens))
            }
        return PlannedRequest(prompt: prompt, inputTokens: inputTokens, outputTokens: outputTokens)
    }

    /// The lengths of the request `index`.
    public func lengths(at index: Int) -> (input: Int, output: Int) {
        var generator = SeededGenerator(seed: seed, stream: UInt64(index))
        let inputTokens = input.pick(&generator)
        return (inputTokens, output.pick(&generator))
    }

    static func tokens(_ count: Int, below bound: UInt32, _ generator: inout SeededGenerator) -> [UInt32] {
        (0..<count).map { _ in UInt32.random(in: 0..<max(1, bound), using: &generator) }
    }

    /// `count` words with a space between them: about as many tokens in a byte-level BPE vocabulary.
    static func words(_ count: Int, _ generator: inout SeededGenerator) -> String {
        (0..<count).map { _ in vocabulary[Int.random(in: vocabulary.indices, using: &generator)] }
            .joined(separator: " ")
    }

    private static let vocabulary =
        """
        the of and to in that it was his he with as for had not be at by on her which is you but she this they from
        were have said all one so an them there been who their if no would when what will him more out up into some
        could very has than about time my man any its now only may over know like little then can made such good well
        before great day after must down come way see never old two house long where hand own here again life too first
        people place night away still world upon think eyes went himself shall every back much thing right young
        """
        .split(whereSeparator: \.isWhitespace).map(String.init)
}
