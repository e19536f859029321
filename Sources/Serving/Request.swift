/// A completion on its whole way from the gateway's door to the sampler: what is asked, and what is known of it so far.
///
/// Every room works on this one value; messages carry it, queues and schedulers keep it. Where lengths alone decide, as in
/// a simulation, `tokens` is empty and the counts stand for themselves.
public struct Request: Sendable, Equatable {
    /// Its number, unique among those that one owner has.
    public var id: UInt64
    /// Ids of the prompt, then those that were generated.
    public private(set) var tokens: [UInt32]
    /// Tokens of the prompt, at least one.
    public private(set) var promptCount: Int
    /// Tokens generated so far, whoever generated them.
    public private(set) var generatedCount: Int
    /// Tokens to generate at most, those that are there included.
    public var maximumTokens: Int
    /// Tokens before which nothing ends generation: no stop token is chosen, no stop string counts.
    public var minimumTokens = 0
    /// Ids that end generation; the one that does is part of the answer.
    public var stopTokens: [UInt32] = []
    /// Texts that end generation and are no part of the answer. Only who decodes tokens to text looks for them.
    public var stopTexts: [String] = []
    /// How tokens are chosen.
    public var sampling = Sampling()
    /// Likeliest alternatives wanted of each token; nil when not even its own logprob is.
    public var topLogprobs: Int?
    /// Higher goes first, and gives its memory up last; 0 to 255.
    public var priority = 0
    /// What of it is computed here.
    public var part = Part.both
    /// What is kept of it serves only requests with the same salt.
    public var cacheSalt = ""
    /// Tokens of the prompt whose state was kept and not computed again.
    public var cachedCount = 0

    /// A request for tokens after `prompt`, of which `generated` are known.
    public init(id: UInt64 = 0, prompt: [UInt32], generated: [UInt32] = [], maximumTokens: Int = 16) {
        self.id = id
        tokens = generated.isEmpty ? prompt : prompt + generated
        promptCount = prompt.count
        generatedCount = generated.count
        self.maximumTokens = maximumTokens
    }

    /// A request of which only the lengths matter.
    public init(
        id: UInt64, promptCount: Int, generatedCount: Int = 0, maximumTokens: Int, part: Part = .both, priority: Int = 0
    ) {
        self.id = id
        tokens = []
        self.promptCount = promptCount
        self.generatedCount = generatedCount
        self.maximumTokens = maximumTokens
        self.part = part
        self.priority = priority
    }

    /// Ids of the prompt.
    public var prompt: ArraySlice<UInt32> { tokens.prefix(promptCount) }
    /// Ids that were generated.
    public var generated: ArraySlice<UInt32> { tokens.dropFirst(promptCount) }
    /// Tokens that are known: prompt and generated.
    public var knownCount: Int { promptCount + generatedCount }
    /// Tokens it may come to.
    public var mostTokens: Int {
        let (sum, overflow) = promptCount.addingReportingOverflow(max(maximumTokens, 0))
        return overflow ? .max : sum
    }

    /// What placement and schedulers need of a request that has not begun: all but its tokens and how they are chosen.
    public var lengths: Request {
        Request(id: id, promptCount: promptCount, maximumTokens: maximumTokens, part: part, priority: priority)
    }

    /// The request with other ids for its prompt and nothing generated.
    public func with(prompt: [UInt32]) -> Request {
        var request = self
        (request.tokens, request.promptCount, request.generatedCount) = (prompt, prompt.count, 0)
        return request
    }

    /// One more token is known.
    public mutating func append(_ token: UInt32) {
        precondition(tokens.count == knownCount, "request \(id) was made of lengths, and takes no token ids")
        tokens.append(token)
        generatedCount += 1
    }

    /// Ids that must not come next.
    public var banned: [UInt32] { generatedCount < minimumTokens ? stopTokens : [] }

    /// How the token after those that are known is chosen.
    public var nextRow: SampleRow {
        SampleRow(
            sampling: sampling, position: UInt64(knownCount), topLogprobs: topLogprobs ?? 0,
            history: sampling.hasPenalties ? tokens : [], promptCount: sampling.hasPenalties ? promptCount : 0,
            banned: banned)
    }

    /// Nil while it goes on after its last token, otherwise how it ended.
    public var end: End? {
        let stops = generatedCount > 0 && tokens.last.map(stopTokens.contains) ?? false
        guard stops || generatedCount >= maximumTokens else { return nil }
        return End(
            reason: stops ? .stop : .length, promptTokens: promptCount, completionTokens: generatedCount,
            cachedTokens: cachedCount)
    }
}

/// The part of a request that an instance computes, and the parts that an instance takes.
public enum Part: String, Sendable, CaseIterable {
    /// The prompt, whose state is handed out.
    case prefill
    /// The generation, from a prompt's state that is received.
    case decode
    /// Prompt and generation.
    case both

    /// True when who takes this part can compute `part` of a request.
    public func covers(_ part: Part) -> Bool { self == .both || self == part }
}

/// How one token is chosen: a request as the sampler sees it at one position.
public struct SampleRow: Sendable, Equatable {
    /// How tokens are chosen.
    public var sampling: Sampling
    /// Position of the token to be chosen; with the seed it determines the random number.
    public var position: UInt64
    /// Likeliest alternatives wanted.
    public var topLogprobs: Int
    /// Ids of prompt and output, only when a penalty is on.
    public var history: [UInt32]
    /// How many of `history` are the prompt.
    public var promptCount: Int
    /// Ids that must not be chosen.
    public var banned: [UInt32]

    /// A row.
    public init(
        sampling: Sampling = Sampling(), position: UInt64 = 0, topLogprobs: Int = 0, history: [UInt32] = [],
        promptCount: Int = 0, banned: [UInt32] = []
    ) {
        self.sampling = sampling
        self.position = position
        self.topLogprobs = topLogprobs
        self.history = history
        self.promptCount = promptCount
        self.banned = banned
    }
}

/// The unit in which prompts are cut, pages are sized and prefixes are named.
public enum Block {
    /// Tokens of a block.
    public static let tokens = 64

    /// `count` rounded up to whole blocks; the largest number of whole blocks there is, where that overflows.
    public static func up(_ count: Int) -> Int {
        let (sum, overflow) = count.addingReportingOverflow(tokens - 1)
        return (overflow ? .max : sum) / tokens * tokens
    }

    /// `count` rounded down to whole blocks.
    public static func down(_ count: Int) -> Int { count / tokens * tokens }
}
