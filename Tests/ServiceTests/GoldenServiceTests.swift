import Foundation
import Testing

/// The goldens through the running services.
@Suite(.serialized) struct GoldenServiceTests {
    @Test(arguments: ["base", "noqlora6h", "tail", "yarn", "mtp"]) func greedyTokensAndLogprobs(model: String) throws {
        let golden = try GoldenArrays(model)
        let wanted = try golden.words("dec.tokens")
        var first: Executables.Completion?
        for extra in [["--experts", "1"], ["--experts", "2", "--prefill-chunk", "64"], ["--experts", "3"]] {
            let completion = try Executables.generate(
                model, prompt: try golden.words("dec.prompt"), count: wanted.count, extra)
            #expect(completion.ids == wanted, "\(model) \(extra)")
            for (row, token) in wanted.enumerated() {
                let expected = try golden.logprob("dec.logits", row: row, token: token, vocabulary: 256)
                #expect(abs(Double(completion.logprobs[row]) - expected) <= 1e-4, "\(model) \(extra) token \(row)")
            }
            #expect(completion.logprobs == first?.logprobs ?? completion.logprobs, "the bits depend on \(extra)")
            first = first ?? completion
        }
    }

    @Test func longPromptsKeepTheirBitsHoweverTheyAreCut() throws {
        let prompt = (0..<300).map { UInt32($0 * 29 % 256) }
        let reference = try Executables.generate("base", prompt: prompt, count: 8, ["--in-process"])
        for extra in [["--prefill-chunk", "64"], ["--prefill-chunk", "192", "--experts", "2"], ["--experts", "3"]] {
            #expect(try Executables.generate("base", prompt: prompt, count: 8, extra) == reference, "\(extra)")
        }
    }

    @Test func quantisedCheckpointThroughServicesEqualsInProcess() throws {
        let golden = try GoldenArrays("fp8")
        let prompt = try golden.words("p65.ids")
        let reference = try Executables.generate("fp8", prompt: prompt, count: 12, ["--in-process"])
        #expect(try Executables.generate("fp8", prompt: prompt, count: 12, ["--experts", "3"]) == reference)
        let expected = try golden.logprob("p65.logits_w8a16", row: 64, token: reference.ids[0], vocabulary: 256)
        #expect(abs(Double(reference.logprobs[0]) - expected) <= 1e-4)
    }

    @Test func textPromptsGiveTheSameThroughServicesAndInProcess() throws {
        let model = Executables.goldens.appendingPathComponent("base").path
        let common = ["generate", "--model", model, "--byte-tokenizer", "--prompt", "It is a truth", "--json"]
        let through = try Executables.ironling(common)
        let inside = try Executables.ironling(common + ["--in-process"])
        #expect(through.status == 0 && through.output == inside.output, "\(through.error)\(inside.error)")
        #expect(through.output.contains("\"prompt_ids\":[73,116,32,105"))
    }

    @Test func badCommandLinesSayWhatIsWrong() throws {
        let model = Executables.goldens.appendingPathComponent("base").path
        for (arguments, word) in [
            (["generate", "--model", model], "--prompt"),
            (["generate", "--model", model, "--prompt-ids", "1,x"], "\"x\""),
            (["generate", "--model", model, "--prompt-ids", "1", "--temperature", "nan"], "--temperature"),
            (["generate", "--frobnicate"], "--frobnicate"), (["frobnicate"], "frobnicate"),
        ] {
            let result = try Executables.ironling(arguments)
            #expect(result.status == 64 && result.error.contains(word), "\(arguments): \(result.error)")
        }
        let missing = try Executables.ironling(["generate", "--model", model, "--prompt-ids", "999", "--json"])
        #expect(missing.status == 1 && missing.error.contains("999"), "\(missing.error)")
    }
}
