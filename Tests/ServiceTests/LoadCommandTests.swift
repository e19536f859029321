import EventLoop
import Foundation
import HTTP
import Testing

/// `ironling load` as a user runs it.
@Suite(.serialized) struct LoadCommandTests {
    private struct Result: Decodable {
        struct Failure: Decodable {
            let kind: String
            let count: Int
        }

        let backend: String
        let completed: Int
        let cancelled: Int
        let failed: Int
        let unsent: Int
        let total_input_tokens: Int
        let total_output_tokens: Int
        let max_concurrent_requests: Int
        let median_itl_ms: Double
        let errors: [Failure]
    }

    private func load(_ arguments: [String], status: Int32 = 0) throws -> Result {
        let run = try Executables.ironling(["load", "--json", "--quiet"] + arguments)
        try #require(run.status == status, "\(arguments): \(run.output)\(run.error)")
        return try JSONDecoder().decode(Result.self, from: Data(run.output.utf8))
    }

    private let small = [
        "--num-prompts", "20", "--max-concurrency", "5", "--random-input-len", "24", "--random-output-len", "12",
    ]

    @Test func bothProtocolsAnswerEveryRequestWithCancelsBetween() async throws {
        let set = try await RunningSet("base", ["--byte-tokenizer"])
        for (backend, target) in [
            ("http", ["--base-url", "http://127.0.0.1:\(set.httpPort)"]),
            ("binary", ["--gateway", "127.0.0.1:\(set.rpcPort)"]),
        ] {
            let plain = try load(target + small)
            #expect(plain.backend == backend && plain.completed == 20 && plain.failed == 0)
            #expect(plain.total_input_tokens == 20 * 24 && plain.total_output_tokens == 20 * 12)
            #expect(plain.max_concurrent_requests == 5 && plain.median_itl_ms > 0)
            let cancels = try load(target + small + ["--cancellation-rate", "0.3"])
            #expect(cancels.cancelled > 0 && cancels.completed + cancels.cancelled == 20 && cancels.failed == 0)
            let open = ["--request-rate", "200", "--dataset-name", "random", "--random-range-ratio", "0.5"]
            let text = try load(target + small + open)
            #expect(text.completed == 20 && text.total_input_tokens > 20 * 24, "bytes, not words, are tokens")
        }
        #expect(set.stop() == 0)
    }

    @Test func aReportAndABlockAreWritten() async throws {
        let set = try await RunningSet("base")
        let report = FileManager.default.temporaryDirectory.appendingPathComponent("load-\(UUID()).html")
        defer { try? FileManager.default.removeItem(at: report) }
        let run = try Executables.ironling(
            ["load", "--gateway", "127.0.0.1:\(set.rpcPort)", "--report", report.path, "--probe-stream", "2"] + small
                + ["--goodput", "ttft:60000", "tpot:60000", "--quiet"])
        #expect(run.status == 0, "\(run.error)")
        #expect(run.output.contains("Successful requests:                     20"))
        #expect(run.output.contains("Requests within it:                      20"))
        #expect(run.output.contains("Steady Streams beside the Load"))
        let html = try String(contentsOf: report, encoding: .utf8)
        #expect(html.contains("</html>") && html.components(separatedBy: "<svg").count == 8)
        #expect(!html.contains("src=") && !html.contains("href="), "one file is all there is")
        #expect(set.stop() == 0)
    }

    /// Every way a server can fail a request is counted under its own name, and the exit status tells.
    @Test func failuresAreCountedByKindAndNotHidden() async throws {
        let loop = UVLoop()
        loop.start()
        let server = try await Task(executorPreference: loop) {
            let server = HTTPServer(loop: loop, limits: HTTPLimits(), handler: FailingServer())
            return (server, try server.listen(host: "127.0.0.1", port: 0))
        }.value
        let arguments = [
            "--base-url", "http://127.0.0.1:\(server.1)", "--num-prompts", "6", "--max-concurrency", "1",
            "--warmup-requests", "0", "--random-output-len", "2", "--request-timeout", "1",
        ]
        let result = try load(arguments, status: 1)
        #expect(result.completed == 1 && result.failed == 5)
        #expect(
            result.errors.map { "\($0.count) \($0.kind)" } == [
                "1 HTTP 429", "1 disconnected", "1 error event in the stream", "1 time-out", "1 wrong length",
            ])
        #expect(try load(arguments + ["--allow-failures"]).failed == 5)
        await Task(executorPreference: loop) { server.0.close() }.value
        loop.stop()
    }

    @Test func unusableCommandLinesSayWhatIsWrong() throws {
        for (arguments, word) in [
            ([], "--base-url"), (["--base-url", "http://10.0.0.1:80"], "--allow-remote"),
            (["--gateway", "example.org:7000"], "--allow-remote"), (["--base-url", "https://127.0.0.1"], "http://"),
            (["--gateway", "127.0.0.1:1", "--cancellation-rate", "2"], "--cancellation-rate"),
            (["--gateway", "127.0.0.1:1", "--goodput", "ttft:1", "tpot:x"], "tpot:x"),
            (["--gateway", "127.0.0.1:1", "--dataset-name", "trace"], "--dataset-path"),
            (["--gateway", "127.0.0.1:1", "--dataset-name", "nothing"], "nothing"),
            (["--gateway", "127.0.0.1:1", "--ramp-up-strategy", "up"], "linear"),
        ] {
            let result = try Executables.ironling(["load"] + arguments)
            #expect(result.status == 64 && result.error.contains(word), "\(arguments): \(result.error)")
        }
    }
}

/// Answers the first six completions in six ways, and again. Confined to its loop.
private final class FailingServer: HTTPHandler, @unchecked Sendable {
    private var count = 0

    func handle(_ request: HTTPRequest, _ response: HTTPResponse) async {
        guard request.path == "/v1/completions" else {
            return response.sendError(status: 404, type: "invalid_request_error", message: "nothing here")
        }
        let turn = count
        count += 1
        let token = "data: {\"choices\":[{\"text\":\"a\",\"token_ids\":[5]}]}\n\n"
        let usage = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":"
        switch turn % 6 {
        case 0: response.sendError(status: 429, type: "rate_limit", message: "busy")
        case 1: await stream(response, token + "data: {\"error\":{\"message\":\"lost\"}}\n\n")
        case 2: await stream(response, token)
        case 3:
            response.beginStream(status: 200, contentType: "text/event-stream")
            try? await response.write(Array(token.utf8))
            // until the client gives up, which cancels this task
            for await _ in AsyncStream<Void>(bufferingPolicy: .unbounded, { _ in }) {}
        case 4: await stream(response, token + usage + "1}}\n\ndata: [DONE]\n\n")
        default: await stream(response, token + token + usage + "2}}\n\ndata: [DONE]\n\n")
        }
    }

    private func stream(_ response: HTTPResponse, _ text: String) async {
        response.beginStream(status: 200, contentType: "text/event-stream")
        try? await response.write(Array(text.utf8))
        response.end()
    }
}
