import Foundation
import Testing
import Tokenization

/// `ironling chat` as a user pipes into it.
@Suite(.serialized) struct ChatCommandTests {
    private let model = Executables.goldens.appendingPathComponent("base").path

    private func chat(_ input: String, _ extra: [String] = []) throws -> (status: Int32, text: String, error: String) {
        let process = Process()
        process.executableURL = Executables.folder.appendingPathComponent("ironling")
        process.arguments =
            ["chat", "--model", model, "--byte-tokenizer", "--temperature", "0", "--max-tokens", "8"] + extra
        let (typed, output, error) = (Pipe(), Pipe(), Pipe())
        process.standardInput = typed
        process.standardOutput = output
        process.standardError = error
        try process.run()
        typed.fileHandleForWriting.write(Data(input.utf8))
        try typed.fileHandleForWriting.close()
        let text = output.fileHandleForReading.readDataToEndOfFile()
        let complaint = error.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        return (
            process.terminationStatus, String(decoding: text, as: UTF8.self), String(decoding: complaint, as: UTF8.self)
        )
    }

    @Test func anAnswerIsTheCompletionOfTheRenderedConversation() throws {
        let prompt = ChatFormat.render(messages: [ChatMessage(.system, "Be brief."), ChatMessage(.user, "Hi")])
        let wanted = try Executables.ironling([
            "generate", "--model", model, "--byte-tokenizer", "--max-tokens", "8", "--prompt", prompt,
        ])
        #expect(wanted.status == 0, "\(wanted.error)")
        let answer = try chat("Hi\n/reset\n\nHi\n/quit\nnever read\n", ["--system", "Be brief."])
        #expect(answer.status == 0, "\(answer.error)")
        #expect(answer.text == wanted.output + wanted.output)
    }

    @Test func whatCannotBeAnsweredIsSaidAndEndsAPipedConversation() throws {
        let long = try chat(String(repeating: "long ", count: 200) + "\n")
        #expect(long.status == 1 && long.error.contains("context"), "\(long)")
        let nowhere = try Executables.ironling(["chat"])
        #expect(nowhere.status == 64 && nowhere.error.contains("--gateway"), "\(nowhere.error)")
    }
}
