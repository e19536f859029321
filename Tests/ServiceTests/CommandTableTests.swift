import Foundation
import Testing

/// What the command says of itself, and what shells and readers of manuals make of it.
@Suite(.serialized) struct CommandTableTests {
    private static func text(_ arguments: [String]) throws -> String {
        let result = try Executables.ironling(arguments)
        #expect(result.status == 0, "\(arguments): \(result.error)")
        return result.output
    }

    /// What a program makes of a script on its standard input; nil when it is not installed.
    private static func ask(_ path: [String], _ arguments: [String], _ input: String) throws -> Executables.Output? {
        guard let program = path.first(where: FileManager.default.isExecutableFile) else { return nil }
        let process = Process()
        process.executableURL = URL(fileURLWithPath: program)
        process.arguments = arguments
        let file = FileManager.default.temporaryDirectory.appendingPathComponent("script-\(UUID().uuidString)")
        try Data(input.utf8).write(to: file)
        defer { try? FileManager.default.removeItem(at: file) }
        let (output, error) = (Pipe(), Pipe())
        process.standardInput = try FileHandle(forReadingFrom: file)
        process.standardOutput = output
        process.standardError = error
        try process.run()
        let text = output.fileHandleForReading.readDataToEndOfFile()
        let complaint = error.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        return Executables.Output(
            status: process.terminationStatus, output: String(decoding: text, as: UTF8.self),
            error: String(decoding: complaint, as: UTF8.self))
    }

    @Test func everyProgramTellsItsVersion() throws {
        let version = try Self.text(["--version"]).trimmingCharacters(in: .whitespacesAndNewlines)
        #expect(version.contains(#/^ironling [0-9]+\.[0-9]+\.[0-9]+$/#), "\(version)")
        #expect(try Self.text(["version"]).contains(version) && Self.text(["up", "--version"]).contains(version))
        for service in ["gateway", "attention", "experts", "sampler"] {
            let result = try Executables.run("ironling-\(service)", ["--version"])
            let wanted = version.replacing("ironling", with: "ironling-\(service)") + "\n"
            #expect(result.status == 0 && result.output == wanted, "\(result)")
        }
    }

    @Test(arguments: [
        (["genrate"], "did you mean generate?"), (["simulate", "mow"], "did you mean moe?"),
        (["up", "--htp-port", "1"], "did you mean --http-port?"),
        (["up", "--mode", "emulat"], "did you mean emulate?"),
        (["up", "--log-level", "warn"], "did you mean warning?"), (["completion", "bahs"], "did you mean bash?"),
    ])
    func whatWasMeantIsGuessed(arguments: [String], words: String) throws {
        let result = try Executables.ironling(arguments)
        #expect(result.status == 64 && result.error.contains(words), "\(result.error)")
    }

    @Test func bashCompletesCommandsOptionsAndValues() throws {
        let script = try Self.text(["completion", "bash"])
        let bash = ["/bin/bash", "/usr/bin/bash"]
        let check = try #require(try Self.ask(bash, ["-n"], script))
        #expect(check.status == 0 && check.error.isEmpty, "\(check.error)")
        func complete(_ words: [String]) throws -> Set<String> {
            let list = words.map { "'\($0)'" }.joined(separator: " ")
            let ask =
                "\(script)\nCOMP_WORDS=(\(list)); COMP_CWORD=\(words.count - 1)\n_ironling 2>/dev/null\n"
                + "printf '%s\\n' \"${COMPREPLY[@]}\"\n"
            let answer = try #require(try Self.ask(bash, [], ask))
            return Set(answer.output.split(separator: "\n").map(String.init))
        }
        #expect(try complete(["ironling", "gen"]) == ["generate"])
        #expect(try complete(["ironling", ""]).isSuperset(of: ["up", "chat", "simulate", "completion", "--version"]))
        #expect(try complete(["ironling", "simulate", "s"]) == ["step", "serve"])
        #expect(try complete(["ironling", "up", "--http-p"]) == ["--http-port"])
        #expect(try complete(["ironling", "up", "--mode", "e"]) == ["emulate"])
        #expect(try complete(["ironling", "simulate", "moe", "--kernel", ""]) == ["v1", "v2"])
        #expect(try complete(["ironling", "completion", "z"]) == ["zsh"])
        #expect(try complete(["ironling-sampler", "--log-level", "w"]) == ["warning"])
        #expect(try complete(["/usr/bin/ironling-experts", "--shar"]) == ["--shard", "--shards"])
        #expect(try complete(["ironling", "up", "--http-port", ""]).isEmpty)
    }

    @Test func otherShellsReadTheirScripts() throws {
        let zsh = try Self.ask(["/usr/bin/zsh", "/bin/zsh"], ["-n"], try Self.text(["completion", "zsh"]))
        #expect(zsh.map { $0.status == 0 && $0.error.isEmpty } ?? true, "\(String(describing: zsh))")
        let script = try Self.text(["completion", "fish"])
        let fish = try Self.ask(
            ["/usr/bin/fish", "/bin/fish"], ["--no-config"], script + "\ncomplete -C 'ironling up --mode e'\n")
        #expect(fish.map { $0.status == 0 && $0.output.hasPrefix("emulate\t") } ?? true, "\(String(describing: fish))")
    }

    @Test func theManualIsRoffWithoutFaults() throws {
        let page = try Self.text(["man"])
        for word in ["IRONLING UP", "\\-\\-http\\-port", "EXIT STATUS", "IRONLING\\-SAMPLER"] {
            #expect(page.contains(word), "\(word)")
        }
        let printed = try Self.ask(["/usr/bin/groff"], ["-man", "-Tutf8", "-ww", "-K", "utf8", "-P-cbou"], page)
        #expect(printed.map { $0.status == 0 && $0.error.isEmpty } ?? true, "\(String(describing: printed?.error))")
        #expect(printed.map { $0.output.contains("IRONLING_HTTP_PORT") } ?? true)
    }

    @Test func optionsStandUnderTitlesAndDefaultsAreWrittenOnce() throws {
        let help = try Self.text(["up", "--help"])
        for title in ["Model:", "Addresses:", "Services:", "Access:", "Help:"] {
            #expect(help.contains("\n\(title)\n"))
        }
        #expect(help.contains("usage: ironling up [DIR] [options]") && !help.contains("Other:"))
        #expect(!help.contains("(default (") && help.contains("(default 8000)"))
    }
}
