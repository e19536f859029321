import Foundation
import Testing

/// `ironling up --mode emulate` as a client team uses it: the flow and the answers, not the times.
@Suite(.serialized) struct EmulateCommandTests {
    private func ask(_ set: RunningSet, _ path: String, _ body: [String: Any]? = nil) throws -> [String: Any] {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = ["curl", "-s", "-m", "30", "http://127.0.0.1:\(set.httpPort)\(path)"]
        if let body {
            let text = String(decoding: try JSONSerialization.data(withJSONObject: body), as: UTF8.self)
            process.arguments? += ["-d", text]
        }
        let output = Pipe()
        process.standardOutput = output
        try process.run()
        let data = output.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        return try #require(try JSONSerialization.jsonObject(with: data) as? [String: Any])
    }

    private func counters(_ set: RunningSet) throws -> [String: Any] {
        try #require((try ask(set, "/get_server_info")["internal_states"] as? [[String: Any]])?.first)
    }

    private func load(_ set: RunningSet, _ arguments: [String] = []) throws -> [String: Any] {
        let run = try Executables.ironling(
            [
                "load", "--json", "--quiet", "--gateway", "127.0.0.1:\(set.rpcPort)", "--num-prompts", "30",
                "--max-concurrency", "10", "--random-input-len", "300", "--random-output-len", "20",
            ] + arguments)
        try #require(run.status == 0, "\(run.output)\(run.error)")
        return try #require(try JSONSerialization.jsonObject(with: Data(run.output.utf8)) as? [String: Any])
    }

    private static let flash = ["--mode", "emulate", "--slice", "v7x-4", "--speedup", "20", "--log-level", "error"]

    @Test func aModelWithoutWeightsAnswersDummyTextAndSaysSo() async throws {
        let set = try await RunningSet(named: "ling-2.6-flash", Self.flash)
        let info = try ask(set, "/get_server_info")
        #expect(
            info["mode"] as? String == "emulate" && info["served_model_name"] as? String == "ling-2.6-flash-emulated")
        let body: [String: Any] = ["prompt": "It is a truth", "max_tokens": 60, "seed": 4]
        let (one, two) = (try ask(set, "/v1/completions", body), try ask(set, "/v1/completions", body))
        let texts = [one, two].compactMap { ($0["choices"] as? [[String: Any]])?.first?["text"] as? String }
        #expect(texts.count == 2 && texts[0] == texts[1] && texts[0].utf8.count == 60, "\(texts)")
        let usage = try #require(one["usage"] as? [String: Any])
        #expect(usage["prompt_tokens"] as? Int == 13 && usage["completion_tokens"] as? Int == 60)
        let result = try load(set)
        #expect(result["completed"] as? Int == 30 && result["total_output_tokens"] as? Int == 600)
        let states = try counters(set)
        #expect(states["attention0.emulated"] as? Int == 1 && states["attention0.dp_ranks"] as? Int == 2)
        #expect(
            states["attention0.slots_in_use"] as? Int == 0 && (states["attention0.emulated_steps"] as? Int ?? 0) > 60)
        #expect(set.stop() == 0)
    }

    @Test func prefillAndDecodeSlicesHandStatesOverWithoutTheirBodies() async throws {
        let set = try await RunningSet(named: "ling-2.6-flash", Self.flash + ["--prefill", "1", "--decode", "1"])
        #expect(try load(set)["completed"] as? Int == 30)
        let states = try counters(set)
        let ends = states.filter { $0.key.hasSuffix("transfers_in_ended_complete") }.compactMap { $0.value as? Int }
        #expect(ends.reduce(0, +) == 31, "30 requests and a warm-up")
        #expect(states["attention1.slots_in_use"] as? Int == 0 && states["attention0.slots_in_use"] as? Int == 0)
        #expect(set.stop() == 0)
    }

    @Test func messagesMayHaveTheirRealSizes() async throws {
        let set = try await RunningSet(
            "base",
            [
                "--mode", "emulate", "--slice", "v7x-4", "--tp", "2", "--prefill-chunk", "512", "--speedup", "20",
                "--elide-bodies", "off", "--log-level", "error", "--prefill", "1", "--decode", "1",
            ])
        #expect(try load(set)["completed"] as? Int == 30)
        #expect(set.stop() == 0)
    }

    @Test func whatCannotBeEmulatedIsRefusedWithOneSentence() throws {
        for (arguments, sentence) in [
            (["--slice", "v7x-4"], "too much"), (["--slots", "4000"], "do not fit"), (["--speedup", "0"], "--speedup"),
            (["--elide-bodies", "maybe"], "on or off"), (["--layout", "none"], "colocated or disaggregated"),
        ] {
            let run = try Executables.ironling(["up", "--mode", "emulate", "--model", "ling-2.6-1t"] + arguments)
            #expect(run.status == 64 && run.error.contains(sentence), "\(arguments): \(run.error)")
            #expect(run.error.split(separator: "\n").count == 1)
        }
        let run = try Executables.ironling(["up", "--mode", "dream", "--model", "ling-2.6-1t"])
        #expect(run.status == 64 && run.error.contains("compute or emulate"))
    }
}
