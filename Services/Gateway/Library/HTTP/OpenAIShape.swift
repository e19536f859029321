import GatewayCore
import JSON
import WireProtocol

/// The answers of `/v1/completions` and `/v1/chat/completions`. Token ids stand beside the text (`token_ids`).
package struct OpenAIShape: AnswerShape {
    private let isChat: Bool
    private let job: CompletionJob
    private let texts: TokenText
    /// All of an object or event up to its choices, written once.
    private let wholeHead: [UInt8]
    private let eventHead: [UInt8]

    /// The shape of the answers to `job`.
    package init(_ job: CompletionJob, id: String, created: Int, model: String, texts: TokenText) {
        isChat = job.interface == .chat
        self.job = job
        self.texts = texts
        func head(_ object: String) -> [UInt8] {
            var writer = JSONWriter()
            writer.beginObject()
            writer.name("id")
            writer.value(id)
            writer.name("object")
            writer.value(object)
            writer.name("created")
            writer.value(created)
            writer.name("model")
            writer.value(model)
            return writer.bytes
        }
        wholeHead = head(isChat ? "chat.completion" : "text_completion")
        eventHead = head(isChat ? "chat.completion.chunk" : "text_completion")
    }

    package func whole(_ completions: [Completion], _ usage: Usage, _ writer: inout JSONWriter) {
        writer.raw(wholeHead)
        writer.name("choices")
        writer.beginArray()
        for completion in completions { write(completion, &writer) }
        writer.endArray()
        writer.name("usage")
        writer.value(usage)
        writer.endObject()
    }

    private func write(_ completion: Completion, _ writer: inout JSONWriter) {
        let text = completion.echo + completion.items.lazy.map(\.text).joined()
        writer.beginObject()
        writer.name("index")
        writer.value(completion.index)
        if isChat {
            writer.name("message")
            writer.beginObject()
            writer.name("role")
            writer.value("assistant")
            writer.name("content")
            writer.value(text)
            writer.name("refusal")
            writer.null()
            writer.endObject()
        } else {
            writer.name("text")
            writer.value(text)
        }
        logprobs(completion.items, offset: 0, &writer)
        writer.name("finish_reason")
        writer.value(completion.end?.reason.name ?? "")
        tokenIDs(completion.items, &writer)
        writer.endObject()
    }

    package func event(_ item: GenerateItem, _ completion: Completion, _ usage: Usage, _ writer: inout JSONWriter) {
        let isFirst = completion.request.generatedCount == item.tokens.count && completion.offset == 0
        begin(&writer)
        writer.beginObject()
        writer.name("index")
        writer.value(completion.index)
        if isChat {
            writer.name("delta")
            writer.beginObject()
            if isFirst {
                writer.name("role")
                writer.value("assistant")
            }
            writer.name("content")
            writer.value(item.text)
            writer.endObject()
        } else {
            writer.name("text")
            writer.value(isFirst ? completion.echo + item.text : item.text)
        }
        logprobs([item], offset: completion.offset, &writer)
        writer.name("finish_reason")
        writer.null()
        tokenIDs([item], &writer)
        writer.endObject()
        end(usage, &writer)
    }

    package func endEvent(_ completion: Completion, _ usage: Usage, _ writer: inout JSONWriter) {
        begin(&writer)
        writer.beginObject()
        writer.name("index")
        writer.value(completion.index)
        if isChat {
            writer.name("delta")
            writer.beginObject()
            writer.endObject()
        } else {
            writer.name("text")
            writer.value("")
        }
        writer.name("logprobs")
        writer.null()
        writer.name("finish_reason")
        writer.value(completion.end?.reason.name ?? "")
        tokenIDs([], &writer)
        writer.endObject()
        end(usage, &writer)
    }

    package func usageEvent(_ usage: Usage, _ writer: inout JSONWriter) {
        begin(&writer)
        writer.endArray()
        writer.name("usage")
        writer.value(usage)
        writer.endObject()
    }

    private func begin(_ writer: inout JSONWriter) {
        writer.raw(eventHead)
        writer.name("choices")
        writer.beginArray()
    }

    private func end(_ usage: Usage, _ writer: inout JSONWriter) {
        writer.endArray()
        if job.continuousUsage {
            writer.name("usage")
            writer.value(usage)
        } else if job.includesUsage {
            writer.name("usage")
            writer.null()
        }
        writer.endObject()
    }

    private func logprobs(_ items: [GenerateItem], offset: Int, _ writer: inout JSONWriter) {
        writer.name("logprobs")
        guard job.wantsLogprobs else { return writer.null() }
        if isChat {
            writer.chatLogprobs(items, texts)
        } else {
            writer.completionLogprobs(items, texts, offset: offset)
        }
    }

    private func tokenIDs(_ items: [GenerateItem], _ writer: inout JSONWriter) {
        writer.name("token_ids")
        writer.beginArray()
        for item in items { for token in item.tokens { writer.value(Int(token.id)) } }
        writer.endArray()
    }
}
