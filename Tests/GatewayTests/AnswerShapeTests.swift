import Foundation
import GatewayCore
import GatewayService
import JSON
import Scheduling
import Serving
import Testing
import WireProtocol

/// Ids 0 to 255 are bytes, 256 is a token of two whole characters.
private struct ByteCodec: TextCodec {
    struct Decoder: TextDecoder {
        mutating func append(_ id: UInt32) -> String { "" }
        mutating func flush() -> String { "" }
    }

    func encode(_ text: String, addingSpecialTokens: Bool) throws -> [UInt32] { text.utf8.map { UInt32($0) } }

    func encode(_ conversation: [GenerateRequest.ChatTurn], thinking: Bool) throws -> [UInt32] {
        try encode(conversation.map(\.content).joined(), addingSpecialTokens: false)
    }

    func bytes(of id: UInt32) -> [UInt8]? {
        id == 256 ? Array("é!".utf8) : UInt8(exactly: id).map { [$0] }
    }

    func isSpecial(_ id: UInt32) -> Bool { false }

    func makeDecoder() -> any TextDecoder { Decoder() }
}

@Suite struct AnswerShapeTests {
    private func object(_ fill: (inout JSONWriter) -> Void) throws -> [String: Any] {
        var writer = JSONWriter()
        fill(&writer)
        return try #require(JSONSerialization.jsonObject(with: Data(writer.bytes)) as? [String: Any])
    }

    private func firstChoice(_ object: [String: Any]) throws -> [String: Any] {
        try #require((object["choices"] as? [[String: Any]])?.first)
    }

    /// Gives each token the text that the test wants.
    private struct Script: TextDecoder {
        var texts: [String]
        mutating func append(_ id: UInt32) -> String { texts.removeFirst() }
        mutating func flush() -> String { "" }
    }

    /// A completion of which these items have come.
    private func completion(_ job: CompletionJob, _ items: [GenerateItem], end: End.Reason? = nil) -> Completion {
        var completion = Completion(job.request, keeping: job.keeping)
        completion.begin(1, decoder: Script(texts: items.map(\.text)), deadline: .max)
        let place = Placement(prefill: 0, decode: 0, attempt: 0)
        for event in [.placed(place, name: "a:1"), .free, .opened] as [Completion.Event] {
            _ = completion.handle(event, now: 0)
        }
        for token in items.flatMap(\.tokens) { _ = completion.handle(.token(token), now: 0) }
        if let end { _ = completion.handle(.ended(end), now: 0) }
        return completion
    }

    private func item(_ text: String) -> GenerateItem { GenerateItem(text: text, tokens: [Token(id: 1, logprob: 0)]) }

    private func shape(_ job: CompletionJob) -> OpenAIShape {
        OpenAIShape(job, id: "id-1", created: 5, model: "m\"1", texts: TokenText(ByteCodec()))
    }

    /// A character whose two bytes are two tokens.
    private let items = [
        GenerateItem(
            text: "",
            tokens: [Token(id: 0xC3, logprob: -1, top: [.init(id: 0xC3, logprob: -1), .init(id: 256, logprob: -2)])]),
        GenerateItem(
            text: "é",
            tokens: [
                Token(
                    id: 0xA9, logprob: -0.5, top: [.init(id: 0xA9, logprob: -0.5), .init(id: 300, logprob: -.infinity)])
            ]),
    ]

    @Test func completionEventsCarryTextIDsAndLogprobs() throws {
        let job = try CompletionJob.completions(Array("{\"prompt\":\"x\",\"logprobs\":2,\"stream\":true}".utf8))
        let completion = completion(job, [item("seven.."), items[1]])
        let event = try object { shape(job).event(items[1], completion, Usage(), &$0) }
        #expect(event["object"] as? String == "text_completion" && event["model"] as? String == "m\"1")
        #expect(event["usage"] == nil)
        let first = try firstChoice(event)
        #expect(first["text"] as? String == "é" && first["token_ids"] as? [Int] == [0xA9])
        #expect(first["finish_reason"] is NSNull)
        let logprobs = try #require(first["logprobs"] as? [String: Any])
        #expect(logprobs["tokens"] as? [String] == ["bytes:\\xa9"])
        #expect(logprobs["text_offset"] as? [Int] == [7])
        #expect(logprobs["top_logprobs"] as? [[String: Double]] == [["bytes:\\xa9": -0.5, "token_id:300": -9999]])
        #expect(logprobs["top_token_ids"] as? [[Int]] == [[0xA9, 300]])
    }

    @Test func chatEventsBeginWithTheRoleAndEndWithAReason() throws {
        let body = """
            {"messages":[{"role":"user","content":"x"}],"stream":true,"logprobs":true,"top_logprobs":2,
            "stream_options":{"include_usage":true}}
            """
        let job = try CompletionJob.chat(Array(body.utf8))
        let shape = shape(job)
        var usage = Usage()
        (usage.prompt, usage.completion) = (3, 1)
        let event = try object { shape.event(items[0], completion(job, [items[0]]), usage, &$0) }
        #expect(event["object"] as? String == "chat.completion.chunk" && event["usage"] is NSNull)
        let first = try firstChoice(event)
        #expect(first["delta"] as? [String: String] == ["role": "assistant", "content": ""])
        let content = (first["logprobs"] as? [String: Any])?["content"] as? [[String: Any]]
        let token = try #require(content?.first)
        #expect(token["bytes"] as? [Int] == [0xC3] && token["id"] as? Int == 0xC3)
        let top = try #require(token["top_logprobs"] as? [[String: Any]])
        #expect(top.map { $0["token"] as? String } == ["bytes:\\xc3", "é!"])
        let done = completion(job, items, end: .length)
        let second = try firstChoice(object { shape.event(items[1], done, usage, &$0) })
        #expect(second["delta"] as? [String: String] == ["content": "é"])
        let end = try firstChoice(object { shape.endEvent(done, usage, &$0) })
        #expect(end["finish_reason"] as? String == "length")
        let last = try object { shape.usageEvent(usage, &$0) }
        #expect((last["choices"] as? [Any])?.isEmpty == true)
        #expect((last["usage"] as? [String: Any])?["total_tokens"] as? Int == 4)
    }

    @Test func continuousUsageIsInEveryEvent() throws {
        let body = "{\"prompt\":\"x\",\"stream\":true,\"stream_options\":{\"continuous_usage_stats\":true}}"
        let job = try CompletionJob.completions(Array(body.utf8))
        var usage = Usage()
        usage.completion = 4
        let event = try object { shape(job).event(items[0], completion(job, [items[0]]), usage, &$0) }
        #expect((event["usage"] as? [String: Any])?["completion_tokens"] as? Int == 4)
    }

    @Test func wholeAnswers() throws {
        let job = try CompletionJob.completions(Array("{\"prompt\":\"x\",\"logprobs\":2}".utf8))
        let done = completion(job, items, end: .stop)
        let first = try firstChoice(object { shape(job).whole([done], Usage(), &$0) })
        #expect(first["text"] as? String == "é" && first["finish_reason"] as? String == "stop")
        #expect((first["logprobs"] as? [String: Any])?["text_offset"] as? [Int] == [0, 0])
    }

    @Test func generateRepeatsTheTextSoFar() throws {
        let job = try CompletionJob.generate(Array("{\"text\":\"x\",\"stream\":true,\"return_logprob\":true}".utf8))
        let shape = GenerateShape(job, id: "g", texts: TokenText(ByteCodec())) { 0.5 }
        let completion = completion(job, [item("a"), item("b"), items[1]])
        let event = try object { shape.event(items[1], completion, Usage(), &$0) }
        #expect(event["text"] as? String == "abé" && event["output_ids"] as? [Int] == [0xA9])
        let meta = try #require(event["meta_info"] as? [String: Any])
        #expect(meta["completion_tokens"] as? Int == 3 && meta["finish_reason"] is NSNull)
        #expect((meta["output_token_logprobs"] as? [[Any]])?.first?[1] as? Int == 0xA9)
    }
}
