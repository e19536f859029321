import FusedMoE

/// A closed loop of equal requests, as published figures were measured: so many at once, all of the same lengths.
public struct ServingCase: Sendable, Equatable {
    /// Tokens of every prompt.
    public var promptTokens: Int
    /// Tokens of every answer.
    public var outputTokens: Int
    /// Requests at once.
    public var concurrency: Int
    /// Requests in all.
    public var requests: Int

    /// A closed loop.
    public init(promptTokens: Int, outputTokens: Int, concurrency: Int, requests: Int) {
        self.promptTokens = promptTokens
        self.outputTokens = outputTokens
        self.concurrency = concurrency
        self.requests = requests
    }

    /// Mean context of a request while it decodes.
    public var meanDecodeContext: Int { promptTokens + outputTokens / 2 }

    /// The cookbook's row: 160 requests of 1024/1024, 32 at once.
    public static let cookbook = ServingCase(promptTokens: 1024, outputTokens: 1024, concurrency: 32, requests: 160)
    /// Prompts of 16,384 tokens with one token of answer, 128 at once.
    public static let prefill = ServingCase(promptTokens: 16_384, outputTokens: 1, concurrency: 128, requests: 512)
    /// 16,384/1,024, 128 at once.
    public static let decode128 = ServingCase(
        promptTokens: 16_384, outputTokens: 1024, concurrency: 128, requests: 512)
    /// 16,384/1,024, 512 at once.
    public static let decode512 = ServingCase(
        promptTokens: 16_384, outputTokens: 1024, concurrency: 512, requests: 2048)
}

/// What a serving run came to.
public struct ServingMeasurement: Sendable, Equatable {
    /// Tokens of answers per second of the run.
    public var outputTokensPerSecond: Double
    /// Tokens of prompts per second of the run.
    public var promptTokensPerSecond: Double
    /// Mean over the requests of the time to the first token, milliseconds.
    public var firstTokenMilliseconds: Double
    /// Mean over the requests of the time between two tokens, milliseconds.
    public var tokenMilliseconds: Double
    /// Length of the run, seconds.
    public var seconds: Double
    /// Tokens per second of the steps that only decode: how fast decode is once the prompts are there.
    public var decodeTokensPerSecond: Double

    /// A measurement.
    public init(
        outputTokensPerSecond: Double, promptTokensPerSecond: Double, firstTokenMilliseconds: Double,
        tokenMilliseconds: Double, seconds: Double, decodeTokensPerSecond: Double
    ) {
        self.outputTokensPerSecond = outputTokensPerSecond
        self.promptTokensPerSecond = promptTokensPerSecond
        self.firstTokenMilliseconds = firstTokenMilliseconds
        self.tokenMilliseconds = tokenMilliseconds
        self.seconds = seconds
        self.decodeTokensPerSecond = decodeTokensPerSecond
    }
}

/// Runs a closed loop on a deployment with the published scheduler: prompts first and in order, decode rows wait for
/// them, all ranks in lockstep.
public protocol ServingRunner {
    /// Runs the loop to its end.
    func measure(_ loop: ServingCase, on deployment: Deployment) throws -> ServingMeasurement
}
