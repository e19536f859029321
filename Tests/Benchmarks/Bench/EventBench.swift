import Foundation
import GatewayCore
import GatewayService
import JSON
import Scheduling
import Serving
import WireProtocol

/// What it costs to write one event of a stream: directly into bytes, and as a tree of objects that Foundation writes.
struct EventSpeed: Encodable {
    let event: String
    let bytes: Int
    let directMicroseconds: Double
    let treeMicroseconds: Double

    var ratio: Double { treeMicroseconds / directMicroseconds }
}

/// Writes the events of a chat stream in both ways, in turns.
struct EventBench {
    private static let rounds = 20
    private static let eventsPerRound = 2_000

    private let item = GenerateItem(
        text: " don't say \"naïve\" 語\n",
        tokens: [
            Token(
                id: 51_203, logprob: -0.734,
                top: (0..<5).map { Token.Alternative(id: 1000 + $0, logprob: -0.5 - Float($0)) })
        ])

    func run(_ progress: Progress) throws -> [EventSpeed] {
        progress("events of a chat stream, written directly and as a tree")
        return try [("text", ""), ("text and 5 logprobs", ",\"logprobs\":true,\"top_logprobs\":5")].map {
            name, fields in
            let body = "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"stream\":true\(fields)}"
            return try measure(name, try CompletionJob.chat(Array(body.utf8)))
        }
    }

    private func measure(_ name: String, _ job: CompletionJob) throws -> EventSpeed {
        let shape = OpenAIShape(job, id: "chatcmpl-0123456789abcdef", created: 1, model: "ling", texts: TokenText(nil))
        var completion = Completion(job.request)
        let place = Placement(prefill: 0, decode: 0, attempt: 0)
        let second = item.tokens.map { Completion.Event.token($0) }
        for event in [.placed(place, name: ""), .free, .opened, .token(Token(id: 1, logprob: 0))] + second {
            _ = completion.handle(event, now: 0)
        }
        var (direct, tree) = (Samples(), Samples())
        var byteCount = 0
        for _ in 0..<Self.rounds {
            direct.values.append(
                timed {
                    var writer = JSONWriter()
                    writer.bytes.reserveCapacity(512)
                    shape.event(item, completion, Usage(), &writer)
                    byteCount = writer.bytes.count
                })
            tree.values.append(try timed { _ = try foundation(logprobs: job.wantsLogprobs) })
        }
        return EventSpeed(
            event: name, bytes: byteCount, directMicroseconds: direct.median, treeMicroseconds: tree.median)
    }

    /// Microseconds of one event.
    private func timed(_ body: () throws -> Void) rethrows -> Double {
        let start = seconds()
        for _ in 0..<Self.eventsPerRound { try body() }
        return (seconds() - start) * 1e6 / Double(Self.eventsPerRound)
    }

    private func foundation(logprobs: Bool) throws -> Data {
        var choice: [String: Any] = [
            "index": 0, "delta": ["content": item.text], "finish_reason": NSNull(), "logprobs": NSNull(),
            "token_ids": item.tokens.map { Int($0.id) },
        ]
        if logprobs { choice["logprobs"] = ["content": item.tokens.map { token($0.id, $0.logprob, top: $0.top) }] }
        let event: [String: Any] = [
            "id": "chatcmpl-0123456789abcdef", "object": "chat.completion.chunk", "created": 1, "model": "ling",
            "choices": [choice],
        ]
        return try JSONSerialization.data(withJSONObject: event, options: .withoutEscapingSlashes)
    }

    private func token(_ id: UInt32, _ logprob: Float, top: [Token.Alternative]) -> [String: Any] {
        [
            "token": "token_id:\(id)", "logprob": Double(logprob), "bytes": NSNull(), "id": Int(id),
            "top_logprobs": top.map { token($0.id, $0.logprob, top: []) },
        ]
    }
}
