import Foundation
import HTTP
import LoadTesting

/// `/v1/completions` with server-sent events, as OpenAI-compatible servers answer it.
struct HTTPTransport: CompletionTransport {
    let client: HTTPClient
    /// What stands before `/v1` in the target.
    let prefix: String
    /// Model to ask for; nil leaves it to the server.
    let model: String?
    /// Sent as a bearer token.
    let apiKey: String?

    func complete(
        _ call: CompletionCall, _ onOutput: (Int) -> Bool
    ) async throws(CompletionFailure) -> CompletionEnd {
        let response: HTTPClientResponse
        do {
            response = try await client.send(try request(call), timeoutMicroseconds: call.timeoutMicroseconds)
            guard response.status == 200 else {
                let body = try await response.body()
                throw CompletionFailure("HTTP \(response.status)", ServerProblem.sentence(body))
            }
        } catch {
            throw Self.failure(error)
        }
        defer { response.cancel() }
        return try await read(response, onOutput)
    }

    private func read(
        _ response: HTTPClientResponse, _ onOutput: (Int) -> Bool
    ) async throws(CompletionFailure) -> CompletionEnd {
        var parser = EventStreamParser()
        var reading = CompletionReading()
        do {
            while let bytes = try await response.next() {
                guard let events = parser.append(bytes) else {
                    throw CompletionFailure("unreadable answer", "an event is too long")
                }
                for event in events {
                    let count = try reading.take(event)
                    guard count == 0 || onOutput(count) else { return CompletionEnd(wasCancelled: true) }
                }
            }
        } catch {
            throw Self.failure(error)
        }
        return try reading.finish()
    }

    private func request(_ call: CompletionCall) throws(CompletionFailure) -> HTTPRequest {
        let body = CompletionBody(
            model: model, prompt: call.request.prompt, max_tokens: call.request.outputTokens,
            ignore_eos: call.ignoresEnd ? true : nil)
        guard let data = try? JSONEncoder().encode(body) else {
            throw CompletionFailure("unusable request", "the prompt cannot be written as JSON")
        }
        return HTTPRequest(
            method: "POST", path: "\(prefix)/v1/completions",
            headers: headers + [("Content-Type", "application/json"), ("Accept", "text/event-stream")],
            body: Array(data))
    }

    private var headers: [(name: String, value: String)] {
        apiKey.map { [("Authorization", "Bearer \($0)")] } ?? []
    }

    /// A JSON object that the server gives at `path`.
    func get<Answer: Decodable>(_ path: String, as type: Answer.Type) async throws(CompletionFailure) -> Answer {
        do {
            let response = try await client.send(
                HTTPRequest(method: "GET", path: prefix + path, headers: headers), timeoutMicroseconds: 10_000_000)
            let body = try await response.body()
            guard response.status == 200, let answer = try? JSONDecoder().decode(type, from: Data(body)) else {
                throw CompletionFailure("HTTP \(response.status)", ServerProblem.sentence(body))
            }
            return answer
        } catch {
            throw Self.failure(error)
        }
    }

    private static func failure(_ error: any Error) -> CompletionFailure {
        switch error {
        case let error as CompletionFailure: error
        case HTTPClientError.cannotConnect(let reason): CompletionFailure("no connection", reason)
        case HTTPClientError.disconnected(let reason): CompletionFailure("disconnected", reason)
        case HTTPClientError.malformed(let reason): CompletionFailure("unreadable answer", reason)
        case HTTPClientError.timedOut: CompletionFailure("time-out", "the answer was not complete in time")
        default: CompletionFailure("given up", "\(error)")
        }
    }
}

/// The body of a request.
private struct CompletionBody: Encodable {
    struct StreamOptions: Encodable {
        let include_usage = true
        let continuous_usage_stats = true
    }

    let model: String?
    let prompt: PlannedRequest.Prompt
    let max_tokens: Int
    let temperature = 0
    let stream = true
    let stream_options = StreamOptions()
    let ignore_eos: Bool?

    enum CodingKeys: CodingKey { case model, prompt, max_tokens, temperature, stream, stream_options, ignore_eos }

    func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encodeIfPresent(model, forKey: .model)
        switch prompt {
        case .tokens(let ids): try container.encode(ids, forKey: .prompt)
        case .text(let text): try container.encode(text, forKey: .prompt)
        }
        try container.encode(max_tokens, forKey: .max_tokens)
        try container.encode(temperature, forKey: .temperature)
        try container.encode(stream, forKey: .stream)
        try container.encode(stream_options, forKey: .stream_options)
        try container.encodeIfPresent(ignore_eos, forKey: .ignore_eos)
    }
}

/// What a server says is wrong.
enum ServerProblem {
    private struct Body: Decodable {
        let error: Problem
    }

    struct Problem: Decodable {
        let message: String?
        let type: String?
    }

    /// The message of an error body; its beginning when it has none.
    static func sentence(_ body: [UInt8]) -> String {
        if let parsed = try? JSONDecoder().decode(Body.self, from: Data(body)), let message = parsed.error.message {
            return message
        }
        return body.isEmpty ? "no body" : String(decoding: body.prefix(200), as: UTF8.self)
    }
}

/// The events of one streamed answer, one after the other.
struct CompletionReading {
    private struct Event: Decodable {
        struct Choice: Decodable {
            let text: String?
            let token_ids: [UInt32]?
        }

        struct Usage: Decodable {
            struct Details: Decodable {
                let cached_tokens: Int?
            }

            let prompt_tokens: Int?
            let completion_tokens: Int?
            let prompt_tokens_details: Details?
        }

        let choices: [Choice]?
        let usage: Usage?
        let error: ServerProblem.Problem?
    }

    private var end = CompletionEnd()
    private var isDone = false

    /// Takes one event; returns how many tokens came with it: the ids it lists, else what its usage adds, else one for
    /// a piece of text.
    mutating func take(_ event: [UInt8]) throws(CompletionFailure) -> Int {
        guard event != Array("[DONE]".utf8) else {
            isDone = true
            return 0
        }
        guard let parsed = try? JSONDecoder().decode(Event.self, from: Data(event)) else {
            throw CompletionFailure("unreadable answer", String(decoding: event.prefix(200), as: UTF8.self))
        }
        if let error = parsed.error {
            throw CompletionFailure("error event in the stream", error.message ?? error.type ?? "without a message")
        }
        let before = end.outputTokens ?? 0
        if let usage = parsed.usage {
            end.inputTokens = usage.prompt_tokens ?? end.inputTokens
            end.outputTokens = usage.completion_tokens ?? end.outputTokens
            end.cachedTokens = usage.prompt_tokens_details?.cached_tokens ?? end.cachedTokens
        }
        guard let choice = parsed.choices?.first else { return 0 }
        if let ids = choice.token_ids { return ids.count }
        if parsed.usage != nil { return max(0, (end.outputTokens ?? 0) - before) }
        return choice.text?.isEmpty == false ? 1 : 0
    }

    /// The end of the answer; throws when it just stopped.
    func finish() throws(CompletionFailure) -> CompletionEnd {
        guard isDone else { throw CompletionFailure("disconnected", "the stream ended without [DONE]") }
        return end
    }
}
