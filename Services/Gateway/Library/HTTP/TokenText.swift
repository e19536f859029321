import JSON
import Serving
import WireProtocol

/// The text and bytes of single tokens, as logprobs show them.
package struct TokenText: Sendable {
    private let codec: (any TextCodec)?

    /// Texts by a tokenizer, or without one.
    package init(_ codec: (any TextCodec)?) { self.codec = codec }

    /// The bytes of a token; nil when it stands for nothing or there is no tokenizer.
    func bytes(_ id: UInt32) -> [UInt8]? { codec?.bytes(of: id) }

    /// A token's text. A piece of a character is shown as `bytes:\xE2\x80`, an id that stands for nothing as `token_id:7`.
    func text(_ id: UInt32) -> String {
        guard let bytes = bytes(id) else { return "token_id:\(id)" }
        if let text = String(validating: bytes, as: UTF8.self) { return text }
        return bytes.reduce(into: "bytes:") { $0 += "\\x" + ($1 < 16 ? "0" : "") + String($1, radix: 16) }
    }
}

extension JSONWriter {
    /// `logprobs` of a chat choice: for each token text, logprob, bytes and our id, and the same for its alternatives.
    mutating func chatLogprobs(_ items: some Sequence<GenerateItem>, _ texts: TokenText) {
        beginObject()
        name("content")
        beginArray()
        for item in items { for token in item.tokens { chatToken(token.id, token.logprob, texts, top: token.top) } }
        endArray()
        name("refusal")
        null()
        endObject()
    }

    private mutating func chatToken(
        _ id: UInt32, _ logprob: Float, _ texts: TokenText, top: [Token.Alternative]? = nil
    ) {
        beginObject()
        name("token")
        value(texts.text(id))
        name("logprob")
        value(logprob)
        name("bytes")
        if let bytes = texts.bytes(id) { value(bytes.lazy.map { Int($0) }) } else { null() }
        name("id")
        value(Int(id))
        if let top {
            name("top_logprobs")
            beginArray()
            for alternative in top { chatToken(alternative.id, alternative.logprob, texts) }
            endArray()
        }
        endObject()
    }

    /// `logprobs` of a completions choice: parallel arrays. `offset` is where the text of the first item begins.
    mutating func completionLogprobs(_ items: [GenerateItem], _ texts: TokenText, offset: Int) {
        let tokens = items.flatMap(\.tokens)
        beginObject()
        name("tokens")
        beginArray()
        for token in tokens { value(texts.text(token.id)) }
        endArray()
        name("token_logprobs")
        beginArray()
        for token in tokens { value(token.logprob) }
        endArray()
        name("top_logprobs")
        beginArray()
        for token in tokens { alternatives(token.top, texts) }
        endArray()
        name("text_offset")
        textOffsets(items, from: offset)
        name("token_ids")
        value(tokens.lazy.map { Int($0.id) })
        name("top_token_ids")
        beginArray()
        for token in tokens { value(token.top.lazy.map { Int($0.id) }) }
        endArray()
        endObject()
    }

    /// An object from text to logprob; of alternatives with the same text the likeliest is kept.
    private mutating func alternatives(_ top: [Token.Alternative], _ texts: TokenText) {
        var seen = Set<[UInt8]>()
        beginObject()
        for alternative in top {
            let text = texts.text(alternative.id)
            guard seen.insert(Array(text.utf8)).inserted else { continue }
            name(text)
            value(alternative.logprob)
        }
        endObject()
    }

    private mutating func textOffsets(_ items: [GenerateItem], from start: Int) {
        var offset = start
        beginArray()
        for item in items {
            for _ in item.tokens { value(offset) }
            offset += item.text.unicodeScalars.count
        }
        endArray()
    }
}
