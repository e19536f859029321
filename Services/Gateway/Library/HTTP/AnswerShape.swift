import GatewayCore
import JSON
import WireProtocol

/// Tokens that a request took.
package struct Usage: Sendable, Equatable {
    /// Tokens of the prompts, each counted once.
    package var prompt = 0
    /// Tokens of all answers so far.
    package var completion = 0
    /// Tokens of the prompts that were not computed again.
    package var cached = 0

    /// None.
    package init() {}
}

/// How an interface writes answers.
package protocol AnswerShape: Sendable {
    /// The whole answer.
    func whole(_ completions: [Completion], _ usage: Usage, _ writer: inout JSONWriter)
    /// One event of a stream: the last item of a completion.
    func event(_ item: GenerateItem, _ completion: Completion, _ usage: Usage, _ writer: inout JSONWriter)
    /// The last event of a completion, whose end is known.
    func endEvent(_ completion: Completion, _ usage: Usage, _ writer: inout JSONWriter)
    /// The last event of a stream that ends with its usage.
    func usageEvent(_ usage: Usage, _ writer: inout JSONWriter)
}

extension JSONWriter {
    mutating func value(_ usage: Usage) {
        beginObject()
        name("prompt_tokens")
        value(usage.prompt)
        name("completion_tokens")
        value(usage.completion)
        name("total_tokens")
        value(usage.prompt + usage.completion)
        name("prompt_tokens_details")
        beginObject()
        name("cached_tokens")
        value(usage.cached)
        endObject()
        endObject()
    }
}
