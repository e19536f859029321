/// Why a request failed: a class that is counted, and one sentence as an example of it.
public struct CompletionFailure: Error, Sendable, Equatable, CustomStringConvertible {
    /// What is counted: "HTTP 429", "error event in the stream", "disconnected", "time-out", …
    public var kind: String
    /// What the server or the system said.
    public var message: String

    /// A failure.
    public init(_ kind: String, _ message: String) {
        self.kind = kind
        self.message = message
    }

    /// Class and sentence.
    public var description: String { "\(kind): \(message)" }
}

/// How a request ended.
public enum Outcome: Sendable, Equatable {
    /// The answer came to its end.
    case completed
    /// We gave it up after some tokens, as planned.
    case cancelled
    /// We gave it up because the run was over.
    case cutOff
    /// It failed.
    case failed(CompletionFailure)
}

/// One request as it was measured. Times are microseconds from the start of the run.
public struct RequestRecord: Sendable, Equatable {
    /// Its place in the workload.
    public var index: Int
    /// When it was due. It is sent later when too many were in flight.
    public var due: UInt64
    /// When it was sent.
    public var sent: UInt64
    /// When each piece of output came.
    public var outputTimes: [UInt64] = []
    /// Tokens in each piece.
    public var outputCounts: [Int] = []
    /// When its answer ended.
    public var ended: UInt64 = 0
    /// Tokens of the prompt.
    public var inputTokens: Int
    /// Tokens of the prompt that the server had in its cache; nil when it does not say.
    public var cachedTokens: Int?
    /// How it ended.
    public var outcome = Outcome.completed

    /// A request that was just sent.
    public init(index: Int, due: UInt64, sent: UInt64, inputTokens: Int) {
        self.index = index
        self.due = due
        self.sent = sent
        self.inputTokens = inputTokens
    }

    /// Takes a piece of output.
    public mutating func add(tokens: Int, at time: UInt64) {
        outputTimes.append(time)
        outputCounts.append(tokens)
    }

    /// Tokens that were streamed.
    public var outputTokens: Int { outputCounts.reduce(0, +) }
    /// Time to first token: from sending to the first piece of output. Milliseconds.
    public var timeToFirstToken: Double? { outputTimes.first.map { milliseconds(sent, $0) } }
    /// End-to-end latency: from sending to the end of the answer. Milliseconds.
    public var latency: Double { milliseconds(sent, ended) }
    /// Time per output token after the first: (latency − TTFT) / (tokens − 1). Milliseconds.
    public var timePerOutputToken: Double? {
        guard let first = timeToFirstToken, outputTokens > 1 else { return nil }
        return (latency - first) / Double(outputTokens - 1)
    }
    /// Gaps between successive pieces of output. Milliseconds.
    public var gaps: [Double] { zip(outputTimes, outputTimes.dropFirst()).map { milliseconds($0, $1) } }
    /// Time it waited in the client because too many were in flight. Milliseconds.
    public var queueTime: Double { milliseconds(due, sent) }

    private func milliseconds(_ start: UInt64, _ end: UInt64) -> Double { end > start ? Double(end - start) / 1000 : 0 }
}
