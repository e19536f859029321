import JSON
import Serving
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

/// One answer to a prompt, as far as it has come. Confined to the loop.
package final class Choice: @unchecked Sendable {
    /// Its number in the answer.
    package let index: Int
    /// What the engine is asked, tokenized.
    package let request: Request
    /// True for the first of the answers to its prompt.
    package let isFirstOfPrompt: Bool
    /// The prompt to begin the answer with.
    package let echo: String
    /// Items so far, when the answer is not streamed.
    package var items: [GenerateItem] = []
    /// Text so far, when the interface repeats it.
    package var text = ""
    /// Characters (Unicode scalars) of text so far.
    package var offset = 0
    /// Tokens so far.
    package var tokens = 0
    /// How it ended.
    package var end: End?

    /// A choice of which nothing has come.
    package init(index: Int, request: Request, isFirstOfPrompt: Bool, echo: String) {
        self.index = index
        self.request = request
        self.isFirstOfPrompt = isFirstOfPrompt
        self.echo = echo
    }
}

/// How an interface writes answers.
package protocol AnswerShape: Sendable {
    /// Whether events repeat the text so far.
    var repeatsText: Bool { get }
    /// The whole answer.
    func whole(_ choices: [Choice], _ usage: Usage, _ writer: inout JSONWriter)
    /// One event of a stream: the next item of a choice, whose counts do not include it yet.
    func event(_ item: GenerateItem, _ choice: Choice, _ usage: Usage, _ writer: inout JSONWriter)
    /// The last event of a choice, whose end is known.
    func endEvent(_ choice: Choice, _ usage: Usage, _ writer: inout JSONWriter)
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
