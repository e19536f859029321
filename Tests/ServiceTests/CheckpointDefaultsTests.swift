import Foundation
import Testing

/// A checkpoint's `generation_config.json` decides what a request over HTTP is sampled with where it says nothing.
@Suite(.serialized, .timeLimit(.minutes(2))) struct CheckpointDefaultsTests {
    /// The demo model with another `generation_config.json` and context, in a folder that the caller removes.
    private func folder(_ generation: String, context: Int = 2048) throws -> URL {
        let folder = FileManager.default.temporaryDirectory
            .appendingPathComponent("defaults-\(UInt64.random(in: 0...UInt64.max))")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        let model = Executables.modelFolder("ling-tiny")
        for name in ["config.json", "tokenizer.json", "model.safetensors"] {
            try FileManager.default.copyItem(
                at: model.appendingPathComponent(name).resolvingSymlinksInPath(),
                to: folder.appendingPathComponent(name))
        }
        try Data(generation.utf8).write(to: folder.appendingPathComponent("generation_config.json"))
        let configuration = folder.appendingPathComponent("config.json")
        let text = try String(contentsOf: configuration, encoding: .utf8)
        let changed = text.replacingOccurrences(
            of: "\"max_position_embeddings\": 2048", with: "\"max_position_embeddings\": \(context)")
        try Data(changed.utf8).write(to: configuration)
        return folder
    }

    private func ask(_ set: RunningSet, _ head: String, _ body: String = "") throws -> [String: Any] {
        let socket = try #require(RawSocket(port: set.httpPort))
        socket.send(
            "\(head) HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)")
        let text = socket.receive().components(separatedBy: "\r\n\r\n").dropFirst().joined(separator: "\r\n\r\n")
        return try #require(try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any], "\(text)")
    }

    /// More text than any fixed limit on bytes would let through is tokenized where the context is large.
    @Test func textIsJudgedByItsTokensWhereTheContextIsLarge() async throws {
        let folder = try folder("{}", context: 262_144)
        defer { try? FileManager.default.removeItem(at: folder) }
        let set = try await RunningSet(folder, ["--slots", "1"])
        let text = String(repeating: "the night is long ", count: 64_000)
        let messages = "{\"messages\":[{\"role\":\"user\",\"content\":\"\(text)\"}]"
        let count = try #require(try ask(set, "POST /tokenize", messages + "}")["count"] as? Int)
        #expect((200_000...262_143).contains(count))
        let answer = try ask(set, "POST /v1/chat/completions", messages + ",\"max_tokens\":1}")
        let error = try #require(answer["error"] as? [String: Any], "\(answer)")
        #expect(
            (error["message"] as? String)?.contains("\(count + 1) tokens, the largest instance holds 65536") == true,
            "\(error)")
        #expect(set.stop() == 0)
    }

    private func answers(_ set: RunningSet, _ more: String = "") throws -> Set<String> {
        let body = "{\"prompt\":\"It is a truth\",\"n\":8,\"max_tokens\":12\(more)}"
        let choices = try #require(try ask(set, "POST /v1/completions", body)["choices"] as? [[String: Any]])
        return Set(choices.compactMap { $0["text"] as? String })
    }

    private func defaults(_ set: RunningSet) throws -> [String: Any] {
        let model = try #require((try ask(set, "GET /v1/models")["data"] as? [[String: Any]])?.first)
        return try #require(model["generation_defaults"] as? [String: Any])
    }

    @Test func aCheckpointThatDoesNotSampleAnswersGreedilyUnlessARequestSaysOtherwise() async throws {
        let folder = try folder("{\"do_sample\": false, \"eos_token_id\": [4084, 4087], \"top_k\": 40}")
        defer { try? FileManager.default.removeItem(at: folder) }
        let set = try await RunningSet(folder)
        #expect(try answers(set).count == 1)
        #expect(try answers(set, ",\"temperature\":1,\"top_k\":0").count > 1)
        let shown = try defaults(set)
        #expect(shown["temperature"] as? Double == 0 && shown["top_k"] as? Int == 40)
        #expect(shown["source"] as? String == "generation_config.json" && shown["top_p"] as? Double == 1)
        #expect(set.stop() == 0)
        let ignoring = try await RunningSet(folder, ["--generation-config", "ignore"])
        #expect(try answers(ignoring).count > 1)
        #expect(try defaults(ignoring)["source"] as? String == "interface")
        #expect(ignoring.stop() == 0)
    }
}
