import GatewayCore
import JSON
import Serving
import WireProtocol

/// The answers of `/generate`: the text so far in every event, counts in `meta_info`.
package struct GenerateShape: AnswerShape {
    private let job: CompletionJob
    private let id: String
    private let texts: TokenText
    /// Seconds since the request came.
    private let elapsed: @Sendable () -> Double

    /// The shape of the answers to `job`.
    package init(_ job: CompletionJob, id: String, texts: TokenText, elapsed: @escaping @Sendable () -> Double) {
        self.job = job
        self.id = id
        self.texts = texts
        self.elapsed = elapsed
    }

    package func whole(_ completions: [Completion], _ usage: Usage, _ writer: inout JSONWriter) {
        guard job.interface == .generate(isBatch: true) else {
            for completion in completions.prefix(1) { write(completion, &writer) }
            return
        }
        writer.beginArray()
        for completion in completions { write(completion, &writer) }
        writer.endArray()
    }

    private func write(_ completion: Completion, _ writer: inout JSONWriter) {
        writer.beginObject()
        writer.name("text")
        writer.value(completion.items.lazy.map(\.text).joined())
        outputIDs(completion, &writer)
        meta(completion, completion.items, &writer)
        writer.endObject()
    }

    package func event(_ item: GenerateItem, _ completion: Completion, _ usage: Usage, _ writer: inout JSONWriter) {
        writer.beginObject()
        writer.name("text")
        writer.value(completion.text)
        writer.name("output_ids")
        writer.value(item.tokens.lazy.map { Int($0.id) })
        meta(completion, [item], &writer)
        writer.endObject()
    }

    package func endEvent(_ completion: Completion, _ usage: Usage, _ writer: inout JSONWriter) {
        writer.beginObject()
        writer.name("text")
        writer.value(completion.text)
        writer.name("output_ids")
        writer.value(EmptyCollection<Int>())
        meta(completion, [], &writer)
        writer.endObject()
    }

    /// `meta_info` has the counts already.
    package func usageEvent(_ usage: Usage, _ writer: inout JSONWriter) {}

    private func outputIDs(_ completion: Completion, _ writer: inout JSONWriter) {
        writer.name("output_ids")
        writer.beginArray()
        for item in completion.items { for token in item.tokens { writer.value(Int(token.id)) } }
        writer.endArray()
    }

    private func meta(_ completion: Completion, _ items: [GenerateItem], _ writer: inout JSONWriter) {
        writer.name("meta_info")
        writer.beginObject()
        writer.name("id")
        writer.value(id)
        writer.name("finish_reason")
        finishReason(completion.end, &writer)
        writer.name("prompt_tokens")
        writer.value(completion.request.promptCount)
        writer.name("completion_tokens")
        writer.value(completion.request.generatedCount)
        if let end = completion.end {
            writer.name("cached_tokens")
            writer.value(end.cachedTokens)
            writer.name("e2e_latency")
            writer.value(elapsed())
        }
        if job.wantsLogprobs { logprobs(items, &writer) }
        writer.endObject()
    }

    private func finishReason(_ end: End?, _ writer: inout JSONWriter) {
        guard let end else { return writer.null() }
        writer.beginObject()
        writer.name("type")
        writer.value(end.reason.name)
        if end.reason == .length {
            writer.name("length")
            writer.value(end.completionTokens)
        }
        writer.endObject()
    }

    /// Triples of logprob, id and text.
    private func logprobs(_ items: [GenerateItem], _ writer: inout JSONWriter) {
        writer.name("output_token_logprobs")
        writer.beginArray()
        for item in items { for token in item.tokens { triple(token.id, token.logprob, &writer) } }
        writer.endArray()
        guard let count = job.request.topLogprobs, count > 0 else { return }
        writer.name("output_top_logprobs")
        writer.beginArray()
        for item in items {
            for token in item.tokens {
                writer.beginArray()
                for alternative in token.top { triple(alternative.id, alternative.logprob, &writer) }
                writer.endArray()
            }
        }
        writer.endArray()
    }

    private func triple(_ id: UInt32, _ logprob: Float, _ writer: inout JSONWriter) {
        writer.beginArray()
        writer.value(logprob)
        writer.value(Int(id))
        writer.value(texts.text(id))
        writer.endArray()
    }
}
