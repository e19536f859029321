/// One request of a workload, before it is sent.
public struct PlannedRequest: Sendable, Equatable {
    /// What is to be completed.
    public enum Prompt: Sendable, Equatable {
        /// Token ids.
        case tokens([UInt32])
        /// UTF-8 text.
        case text(String)
    }

    /// The prompt.
    public var prompt: Prompt
    /// Tokens of the prompt; an estimate when it is text that nobody has tokenized.
    public var inputTokens: Int
    /// Tokens to ask for.
    public var outputTokens: Int

    /// A request.
    public init(prompt: Prompt, inputTokens: Int, outputTokens: Int) {
        self.prompt = prompt
        self.inputTokens = inputTokens
        self.outputTokens = outputTokens
    }
}

/// A described set of requests. The same description and seed give the same requests.
public protocol Workload: Sendable {
    /// How many requests there are.
    var count: Int { get }
    /// The request `index`, from 0 to `count - 1`; made when it is asked for.
    func request(at index: Int) -> PlannedRequest
    /// Tokens of the prompt and of the answer of the request `index`, without making it where that can be helped.
    func lengths(at index: Int) -> (input: Int, output: Int)
    /// When each request is due, in microseconds from the start, where the workload says so itself (a trace).
    var dueTimes: [UInt64]? { get }
    /// What is to be said of the data set: what was left out of it and why, and what was made of the rest.
    var notices: [String] { get }
}

extension Workload {
    /// Nothing: the arrival process decides.
    public var dueTimes: [UInt64]? { nil }

    /// Nothing.
    public var notices: [String] { [] }

    /// Those of the request that is made.
    public func lengths(at index: Int) -> (input: Int, output: Int) {
        let request = request(at: index)
        return (request.inputTokens, request.outputTokens)
    }
}

/// Streams of a seed, one per purpose.
enum SeedStream {
    static let arrivals: UInt64 = 1 << 60
    static let cancellation: UInt64 = 2 << 60
    static let prefix: UInt64 = 3 << 60
    static let order: UInt64 = 4 << 60
    static let block: UInt64 = 5 << 60
}

/// A length around `length`: uniform from `ratio · length` to `length`, as `bench_serving --random-range-ratio` has it.
public struct LengthRange: Sendable, Equatable {
    /// The longest.
    public var length: Int
    /// The shortest, as a part of the longest; 1 makes all equal.
    public var ratio: Double

    /// A range.
    public init(_ length: Int, ratio: Double = 1) {
        self.length = length
        self.ratio = ratio
    }

    func pick(_ generator: inout SeededGenerator) -> Int {
        let shortest = min(length, max(1, Int(Double(length) * ratio)))
        return Int.random(in: shortest...max(shortest, length), using: &generator)
    }
}

/// Which requests are cancelled, and after how many tokens.
public struct CancellationPlan: Sendable, Equatable {
    /// Part of the requests that are cancelled, 0 to 1.
    public var rate: Double
    /// Seed of the choice.
    public var seed: UInt64

    /// A plan.
    public init(rate: Double, seed: UInt64) {
        self.rate = rate
        self.seed = seed
    }

    /// Tokens after which the request `index` is given up; nil when it is not. A request of one token is never
    /// cancelled: its first token ends it.
    public func tokens(index: Int, outputTokens: Int) -> Int? {
        guard rate > 0, outputTokens > 1 else { return nil }
        var generator = SeededGenerator(seed: seed, stream: SeedStream.cancellation | UInt64(index))
        guard generator.unit() <= rate else { return nil }
        return Int.random(in: 1..<outputTokens, using: &generator)
    }
}
