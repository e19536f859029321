import Foundation
import Testing
import Tokenization

/// The demo model against the PyTorch code it was trained with. The fixtures come from
/// `python -m ling_tiny.fixtures` (Models/ling-tiny/train).
@Suite(.serialized) struct LingTinyTests {
    private struct Continuation: Decodable {
        let prompt: [UInt32]
        let tokens: [UInt32]
        let logprobs: [Double]
    }

    private struct Perplexity: Decodable {
        let perplexity_per_token: Double
        let tokens: Int
    }

    private let folder = Executables.modelFolder("ling-tiny")

    private func fixture(_ name: String) -> URL {
        Executables.goldens.deletingLastPathComponent().appendingPathComponent("ling-tiny/\(name)")
    }

    @Test func greedyContinuationsOfHeldOutPromptsAreThoseOfPyTorch() async throws {
        let wanted = try JSONDecoder().decode(
            [Continuation].self, from: Data(contentsOf: fixture("greedy.json")))
        #expect(wanted.count == 20 && wanted.allSatisfy { $0.tokens.count == 64 })
        let set = try await RunningSet("ling-tiny", ["--experts", "2"])
        try await set.withClient { client in
            for (index, item) in wanted.enumerated() {
                let got = try await tokens(client, request(item.prompt, item.tokens.count))
                #expect(got.map(\.id) == item.tokens, "prompt \(index)")
                let largest = zip(got, item.logprobs).map { abs(Double($0.logprob) - $1) }.max() ?? .infinity
                #expect(largest <= 1e-3, "prompt \(index)")
            }
        }
        #expect(set.stop() == 0)
    }

    private func perplexity(_ model: URL) throws -> Perplexity {
        let result = try Executables.ironling([
            "perplexity", "--model", model.path, "--text", fixture("excerpt.txt").path, "--json",
        ])
        try #require(result.status == 0, "\(result.error)")
        return try JSONDecoder().decode(Perplexity.self, from: Data(result.output.utf8))
    }

    @Test func perplexityIsThatOfPyTorchAndFP8StaysWithinTwoPercent() throws {
        let wanted = try JSONDecoder().decode(Perplexity.self, from: Data(contentsOf: fixture("perplexity.json")))
        let exact = try perplexity(folder)
        #expect(exact.tokens == wanted.tokens)
        #expect(abs(exact.perplexity_per_token / wanted.perplexity_per_token - 1) <= 1e-4)
        let variant = FileManager.default.temporaryDirectory.appendingPathComponent("ironling-\(UUID().uuidString)")
        defer { try? FileManager.default.removeItem(at: variant) }
        let made = try Executables.ironling(["quantize", "--model", folder.path, "--output", variant.path])
        #expect(made.status == 0 && made.output.contains("FP8") && made.error.contains("100 %"), "\(made)")
        let rounded = try perplexity(variant)
        #expect(abs(rounded.perplexity_per_token / exact.perplexity_per_token - 1) <= 0.02)
        let again = try Executables.ironling(["quantize", "--model", variant.path, "--output", variant.path + "-2"])
        #expect(again.status == 1 && again.error.contains("quantised already"), "\(again.error)")
    }

    @Test func aQuestionGetsAnAnswerThatEnds() throws {
        let prompt = ChatFormat.render(messages: [ChatMessage(.user, "Who wrote Emma?")])
        let answer = try Executables.ironling([
            "generate", "--model", folder.path, "--prompt", prompt, "--max-tokens", "64", "--json",
        ])
        try #require(answer.status == 0, "\(answer.error)")
        let completion = try JSONDecoder().decode(Executables.Completion.self, from: Data(answer.output.utf8))
        #expect(completion.finish_reason == "stop")
        #expect(completion.text == "Emma was written by Jane Austen.")
    }

    @Test func badPerplexityRequestsSayWhatIsWrong() throws {
        let text = fixture("excerpt.txt").path
        for (arguments, status, word) in [
            (["--model", folder.path], 64, "--text"), (["--model", folder.path, "--text", "/nowhere"], 1, "/nowhere"),
            (["--model", folder.path, "--text", text, "--context", "1"], 64, "--context"),
            (["--model", folder.path, "--text", text, "--context", "64", "--stride", "65"], 64, "--stride"),
            (["--model", folder.path, "--text", text, "--limit", "1"], 1, "1 tokens"),
            (["--model", Executables.modelFolder("base").path, "--text", text], 1, "tokenizer.json"),
        ] {
            let result = try Executables.ironling(["perplexity"] + arguments)
            #expect(result.status == status && result.error.contains(word), "\(arguments): \(result.error)")
        }
    }
}
