import Foundation
import Testing

/// The HTTP face of a running set, spoken to with curl as a user would.
@Suite(.serialized) struct HTTPFaceTests {
    private func curl(_ set: RunningSet, _ path: String, _ body: String? = nil) throws -> (status: Int, text: String) {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments =
            ["curl", "-sN", "-m", "20", "-w", "\n%{http_code}", "http://127.0.0.1:\(set.httpPort)\(path)"]
            + (body.map { ["-d", $0] } ?? [])
        let output = Pipe()
        process.standardOutput = output
        try process.run()
        let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
        return (Int(lines.last ?? "") ?? 0, lines.dropLast().joined(separator: "\n"))
    }

    @Test func completionsModelsAndErrors() async throws {
        let set = try await RunningSet("base", ["--byte-tokenizer"])
        #expect(try curl(set, "/health").status == 200)
        #expect(try curl(set, "/ready").status == 200)
        #expect(try curl(set, "/v1/models").text.contains("\"id\":\"base\""))
        let wanted = try Executables.generate("base", prompt: [1, 2, 3], count: 6, ["--in-process"])
        let ids = wanted.ids.map(String.init).joined(separator: ",")
        let greedy = "{\"prompt\":[1,2,3],\"max_tokens\":6,\"temperature\":0,\"ignore_eos\":true"
        let whole = try curl(set, "/v1/completions", greedy + "}")
        #expect(whole.status == 200 && whole.text.contains("\"token_ids\":[\(ids)]"), "\(whole.text)")
        let streamed = try curl(set, "/v1/completions", greedy + ",\"stream\":true}")
        #expect(streamed.text.hasSuffix("data: [DONE]\n\n"))
        #expect(wanted.ids.allSatisfy { streamed.text.contains("\"token_ids\":[\($0)]") })
        for (body, word) in [
            ("{\"prompt\":[999]}", "999"), ("{\"prompt\":\"\"}", "prompt"), ("{", "JSON"), ("\u{FF}", "JSON"),
            ("{\"prompt\":[1],\"temperature\":-1}", "temperature"), ("{\"prompt\":[1],\"top_p\":2}", "top_p"),
            ("{\"prompt\":[1],\"tools\":[{}]}", "tools"),
            ("{\"prompt\":[1],\"max_tokens\":9999}", "context"), ("{\"prompt\":[-1]}", "token id"),
        ] {
            let answer = try curl(set, "/v1/completions", body)
            #expect(answer.status == 400 && answer.text.contains(word), "\(body): \(answer)")
        }
        #expect(try curl(set, "/nowhere").status == 404)
        let other = try curl(set, "/v1/completions", "{\"prompt\":[1],\"model\":\"nobody\"}")
        #expect(other.status == 404 && other.text.contains("nobody"))
        #expect(set.stop() == 0)
    }

    /// A request's time counts while it waits for room as well.
    @Test func aRequestWhoseTimeEndsWhileItWaitsForRoomIsAnsweredThen() async throws {
        let set = try await RunningSet("ling-tiny", ["--slots", "1"])
        let first = try #require(RawSocket(port: set.httpPort))
        first.send(Self.post("{\"prompt\":[1],\"max_tokens\":1900,\"ignore_eos\":true,\"stream\":true}"))
        _ = first.receive(until: "data: ")
        let second = try #require(RawSocket(port: set.httpPort))
        second.send(Self.post("{\"prompt\":[1],\"max_tokens\":1}", "x-request-timeout: 0.05\r\n"))
        let answer = second.receive(until: "}}")
        #expect(answer.hasPrefix("HTTP/1.1 504 ") && answer.contains("time"), "\(answer)")
        let placed = try await set.withClient { try await counters($0)["requests_placed"] }
        #expect(placed == 1, "the answer came only when the first request was done")
        first.reset()
        #expect(set.stop() == 0)
    }

    private static func post(_ body: String, _ headers: String = "") -> String {
        "POST /v1/completions HTTP/1.1\r\nHost: a\r\n\(headers)Content-Length: \(body.utf8.count)\r\n\r\n\(body)"
    }

    @Test func tokenizeReadsJSONLines() throws {
        let process = Process()
        process.executableURL = Executables.folder.appendingPathComponent("ironling")
        process.arguments = ["tokenize", "--model", Executables.goldens.appendingPathComponent("tokenizer").path]
        let (input, output) = (Pipe(), Pipe())
        process.standardInput = input
        process.standardOutput = output
        try process.run()
        input.fileHandleForWriting.write(Data("{\"text\": \"Hello, world!\"}\n{\"text\": \"a\"}\n".utf8))
        try input.fileHandleForWriting.close()
        let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        #expect(text == "{\"ids\":[39,511,78,11,1065,0]}\n{\"ids\":[64]}\n")
    }
}
