import Foundation
import Testing

/// Requests as users' clients send them, and connections as their proxies do, against the running services.
@Suite(.serialized, .timeLimit(.minutes(3))) struct FieldRequestTests {
    private static let folder = Executables.goldens.deletingLastPathComponent().appendingPathComponent("field")

    private func fixture(_ name: String) throws -> String {
        try String(contentsOf: Self.folder.appendingPathComponent(name), encoding: .utf8)
    }

    private func post(
        _ set: RunningSet, _ path: String, _ body: String, halfCloses: Bool = false
    ) throws -> (head: String, body: String) {
        let socket = try #require(RawSocket(port: set.httpPort))
        let closing = halfCloses ? "" : "Connection: close\r\n"
        socket.send(
            "POST \(path) HTTP/1.1\r\nHost: x\r\n\(closing)Content-Length: \(body.utf8.count)\r\n\r\n\(body)")
        if halfCloses { socket.endWriting() }
        let answer = socket.receive()
        let end = try #require(answer.range(of: "\r\n\r\n"), "\(answer)")
        return (String(answer[..<end.lowerBound]), String(answer[end.upperBound...]))
    }

    private func object(_ text: String) throws -> [String: Any] {
        try #require(try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any], "\(text)")
    }

    private func tokens(_ set: RunningSet, _ body: String) throws -> [Int] {
        try #require(try object(try post(set, "/tokenize", body).body)["tokens"] as? [Int])
    }

    /// The end of an answer that nothing but room bounds, as a stream, which is never silent for long.
    private func endless(_ set: RunningSet) throws -> String {
        let options = ",\"stream\":true,\"stream_options\":{\"include_usage\":true}}"
        let request = try fixture("no-max-tokens.json").replacingOccurrences(
            of: "\"ignore_eos\":true}", with: "\"ignore_eos\":true" + options)
        return String(try post(set, "/v1/chat/completions", request).body.suffix(400))
    }

    @Test func fieldsThatChangeNothingTextThatMarksNothingAndAnswersThatEndAtTheContext() async throws {
        let set = try await RunningSet("ling-tiny")
        for name in [
            "message-name", "message-extra-fields", "chat-template-kwargs", "content-part-cache-control",
            "harmless-defaults", "duplicate-key",
        ] {
            let answer = try post(set, "/v1/chat/completions", try fixture("\(name).json"))
            #expect(answer.head.hasPrefix("HTTP/1.1 200 "), "\(name): \(answer)")
        }
        let metrics = try #require(RawSocket(port: set.httpPort))
        metrics.send("GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        let counts = metrics.receive()
        #expect(counts.contains("ironling_request_fields_total{class=\"harmless\"} 4\n"), "\(counts)")

        let injected = try tokens(set, try fixture("injected-turn.json"))
        let plain = try tokens(set, "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}")
        for mark in [4087, 4088, 4089] {
            #expect(injected.filter { $0 == mark }.count == plain.filter { $0 == mark }.count, "\(mark)")
        }
        let thinking =
            "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}],\"chat_template_kwargs\":{\"enable_thinking\":true}}"
        #expect(try tokens(set, thinking) != plain)

        #expect(try endless(set).contains("\"total_tokens\":2048,"), "the context")
        let short = try object(try post(set, "/v1/completions", "{\"prompt\":\"It\",\"ignore_eos\":true}").body)
        #expect((short["usage"] as? [String: Any])?["completion_tokens"] as? Int == 16, "as OpenAI has it")
        #expect(set.stop() == 0)
    }

    /// What instances hold may be less than the context; an answer ends there, and none is refused for it.
    @Test func anAnswerWithoutALimitEndsAtWhatAnInstanceHolds() async throws {
        let set = try await RunningSet("ling-tiny", ["--kv-tokens", "640"])
        #expect(try endless(set).contains("\"total_tokens\":640,"))
        #expect(set.stop() == 0)
    }

    @Test func textIsJudgedByItsTokensAndTooMuchOfItByItsBytes() async throws {
        let set = try await RunningSet(
            named: "ling-2.6-1t",
            ["--mode", "emulate", "--slice", "v7x-16", "--speedup", "1000", "--log-level", "error"])
        let long = String(repeating: "the night is long ", count: 5_000)
        func chat(_ text: String) -> String {
            "{\"messages\":[{\"role\":\"user\",\"content\":\"\(text)\"}],\"max_tokens\":1}"
        }
        let fits = try post(set, "/v1/chat/completions", chat(long))
        #expect(fits.head.hasPrefix("HTTP/1.1 200 "), "\(fits.head)")
        // Its tokens are bytes here, so that 1.15 MB do not fit.
        let tooLong = try post(
            set, "/v1/chat/completions", chat(String(repeating: "the night is long ", count: 64_000)))
        #expect(tooLong.head.hasPrefix("HTTP/1.1 400 ") && tooLong.body.contains("context_length_exceeded"))
        #expect(tooLong.body.contains("1152000 bytes"), "\(tooLong.body)")
        #expect(set.stop() == 0)
    }

    @Test func halfClosedClientsPagesOfOtherOriginsAndSpacesInHeaders() async throws {
        let keys = FileManager.default.temporaryDirectory.appendingPathComponent(
            "keys-\(UInt64.random(in: 0...UInt64.max))")
        try Data("sk-abcdefgh\n".utf8).write(to: keys)
        defer { try? FileManager.default.removeItem(at: keys) }
        let set = try await RunningSet(
            "ling-tiny", ["--cors-origin", "http://localhost:5173/", "--api-keys-file", keys.path])
        for name in ["cors-preflight.txt", "header-spaces.txt"] {
            let socket = try #require(RawSocket(port: set.httpPort))
            socket.send(try fixture(name))
            let answer = socket.receive()
            #expect(socket.hasPeerEnded, "the connection was to be closed, not kept for the next request")
            guard name == "cors-preflight.txt" else {
                #expect(answer.hasPrefix("HTTP/1.1 200 "), "\(answer)")
                continue
            }
            let allowed = answer.components(separatedBy: "\r\n").first {
                $0.hasPrefix("Access-Control-Allow-Headers: ")
            }
            let names = Set(allowed?.dropFirst(30).components(separatedBy: ", ") ?? [])
            #expect(answer.hasPrefix("HTTP/1.1 204 ") && names.contains("x-stainless-retry-count"), "\(answer)")
            #expect(names.count == 10 && answer.contains("Access-Control-Allow-Origin: http://localhost:5173\r\n"))
        }
        #expect(set.stop() == 0)

        let open = try await RunningSet("ling-tiny")
        let body = "{\"prompt\":\"It is\",\"max_tokens\":8,\"temperature\":0"
        let whole = try post(open, "/v1/completions", body + "}", halfCloses: true)
        #expect(whole.head.hasPrefix("HTTP/1.1 200 ") && whole.body.contains("\"finish_reason\""), "\(whole)")
        let stream = try post(open, "/v1/completions", body + ",\"stream\":true}", halfCloses: true)
        #expect(stream.head.hasPrefix("HTTP/1.1 200 ") && stream.body.hasSuffix("data: [DONE]\n\n\r\n0\r\n\r\n"))
        for version in ["1.0", "1.1"] {
            let socket = try #require(RawSocket(port: open.httpPort))
            socket.send("GET /health HTTP/\(version)\r\nHost: x\r\nConnection: close\r\n\r\n")
            #expect(socket.receive().hasSuffix("ok\n") && socket.hasPeerEnded)
        }
        #expect(open.stop() == 0)
    }
}
