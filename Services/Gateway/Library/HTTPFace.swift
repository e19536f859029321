import EventLoop
import Foundation
import HTTP
import RPC
import ServiceSupport
import WireProtocol

/// The gateway's HTTP face: `/v1/completions`, `/v1/models`, `/health`, `/ready`, over the completion engine.
final class HTTPFace: HTTPHandler, @unchecked Sendable {
    private let engine: CompletionEngine
    private var isDraining = false
    private var nextID: UInt64 = 1
    /// The text of `/metrics`.
    var metrics: @Sendable () async -> String = { "" }

    init(engine: CompletionEngine) { self.engine = engine }

    /// From now on `/ready` says 503.
    func drain() { isDraining = true }

    func handle(_ request: HTTPRequest, _ response: HTTPResponse) async {
        switch (request.method, request.path) {
        case ("GET", "/health"), ("HEAD", "/health"):
            response.send(status: 200, contentType: "text/plain", body: Array("ok\n".utf8))
        case ("GET", "/ready"), ("HEAD", "/ready"):
            let isReady = engine.isReady && !isDraining
            response.send(
                status: isReady ? 200 : 503, contentType: "text/plain",
                body: Array((isReady ? "ready\n" : "not ready\n").utf8))
        case ("GET", "/v1/models"):
            let model: [String: Any] = ["id": engine.modelName, "object": "model", "owned_by": "ironling"]
            send(["object": "list", "data": [model]], response)
        case ("GET", "/metrics"), ("HEAD", "/metrics"):
            response.send(
                status: 200, contentType: ServiceMetrics.contentType, body: Array(await metrics().utf8))
        case ("POST", "/v1/completions"): await complete(request, response)
        case (_, "/health"), (_, "/ready"), (_, "/metrics"), (_, "/v1/models"), (_, "/v1/completions"):
            fail(response, 405, "\(request.method) is not answered at \(request.path)")
        default: fail(response, 404, "there is nothing at \(request.path)")
        }
    }

    private func complete(_ request: HTTPRequest, _ response: HTTPResponse) async {
        let id = "cmpl-\(nextID)"
        nextID += 1
        do throws(RPCError) {
            let parsed = try CompletionRequest(json: request.body)
            if parsed.streams {
                try await stream(parsed, id, response)
            } else {
                try await answer(parsed, id, response)
            }
        } catch {
            guard !response.isStarted else { return }
            fail(response, Self.status(error), error.message)
        }
    }

    private func answer(_ parsed: CompletionRequest, _ id: String, _ response: HTTPResponse) async throws(RPCError) {
        var text = ""
        var items: [GenerateItem] = []
        let end = try await engine.complete(parsed.request) { item throws(RPCError) in
            text += item.text
            items.append(item)
        }
        var choice: [String: Any] = [
            "index": 0, "text": text, "finish_reason": end.reason.name,
            "token_ids": items.flatMap { $0.tokens.map { Int($0.id) } },
        ]
        if parsed.request.logprobs != nil { choice["logprobs"] = Self.logprobs(items) }
        send(object(id, choice, usage: end), response)
    }

    private func stream(_ parsed: CompletionRequest, _ id: String, _ response: HTTPResponse) async throws(RPCError) {
        _ = try engine.promptTokens(parsed.request)
        do throws(RPCError) {
            let end = try await engine.complete(parsed.request) { [self] item throws(RPCError) in
                if !response.isStarted { begin(response) }
                var choice: [String: Any] = [
                    "index": 0, "text": item.text, "finish_reason": NSNull(),
                    "token_ids": item.tokens.map { Int($0.id) },
                ]
                if parsed.request.logprobs != nil { choice["logprobs"] = Self.logprobs([item]) }
                try await event(object(id, choice, usage: nil), response)
            }
            if !response.isStarted { begin(response) }
            let last: [String: Any] = ["index": 0, "text": "", "finish_reason": end.reason.name, "token_ids": [Int]()]
            try await event(object(id, last, usage: end), response)
        } catch {
            guard response.isStarted else { throw error }
            try await event(["error": ["message": error.message, "type": "\(error.code)"]], response)
        }
        try await write("data: [DONE]\n\n", response)
        response.end()
    }

    private func begin(_ response: HTTPResponse) {
        response.beginStream(
            status: 200, contentType: "text/event-stream", headers: [("Cache-Control", "no-cache")])
    }

    private func event(_ object: [String: Any], _ response: HTTPResponse) async throws(RPCError) {
        try await write("data: \(Self.json(object))\n\n", response)
    }

    private func write(_ text: String, _ response: HTTPResponse) async throws(RPCError) {
        do { try await response.write(Array(text.utf8)) } catch {
            throw RPCError(.cancelled, "the client is gone or does not read: \(error)")
        }
    }

    private func object(_ id: String, _ choice: [String: Any], usage: GenerateEnd?) -> [String: Any] {
        var object: [String: Any] = [
            "id": id, "object": "text_completion", "created": Int(Date().timeIntervalSince1970),
            "model": engine.modelName, "choices": [choice],
        ]
        if let usage {
            object["usage"] = [
                "prompt_tokens": Int(usage.promptTokens), "completion_tokens": Int(usage.completionTokens),
                "total_tokens": Int(usage.promptTokens) + Int(usage.completionTokens),
            ]
        }
        return object
    }

    private static func logprobs(_ items: [GenerateItem]) -> [String: Any] {
        let tokens = items.flatMap(\.tokens)
        let top = items.flatMap { item -> [[String: Double]] in
            guard !item.tokens.isEmpty else { return [] }
            return [Dictionary(item.top.map { (String($0.id), Double($0.logprob)) }, uniquingKeysWith: { a, _ in a })]
        }
        return [
            "tokens": tokens.map { String($0.id) }, "token_logprobs": tokens.map { Double($0.logprob) },
            "top_logprobs": top,
        ]
    }

    private func send(_ object: [String: Any], _ response: HTTPResponse) {
        response.send(status: 200, contentType: "application/json", body: Array(Self.json(object).utf8))
    }

    private func fail(_ response: HTTPResponse, _ status: Int, _ message: String) {
        response.sendError(
            status: status, type: status < 500 ? "invalid_request_error" : "server_error", message: message)
    }

    private static func json(_ object: [String: Any]) -> String {
        let data = try? JSONSerialization.data(withJSONObject: object, options: [.sortedKeys, .withoutEscapingSlashes])
        return String(decoding: data ?? Data("{}".utf8), as: UTF8.self)
    }

    private static func status(_ error: RPCError) -> Int {
        switch error.code {
        case .invalidArgument, .limitExceeded: 400
        case .notAccepted: 429
        case .unavailable, .cancelled: 503
        case .deadlineExceeded: 504
        default: 500
        }
    }
}
