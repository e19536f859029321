import Testing

/// What `ironling generate` refuses before anything is started or computed.
@Suite struct GenerateCommandTests {
    @Test(arguments: [
        (["--prompt", "a", "--prompt-ids", "1"], "exclude each other"), (["--prompt", ""], "--prompt-ids"),
        (["--prompt-ids", "1,,2"], "token ids"), (["--prompt-ids", "1,"], "token ids"),
        (["--prompt-ids", "1", "--in-process", "--max-tokens", "512"], "context of 512 tokens"),
    ])
    func refusesWithASentence(arguments: [String], words: String) throws {
        let model = Executables.goldens.appendingPathComponent("base").path
        let result = try Executables.ironling(["generate", "--model", model] + arguments)
        #expect(result.status == 64 && result.error.contains(words), "\(result.error)")
        #expect(result.output.isEmpty)
    }
}
