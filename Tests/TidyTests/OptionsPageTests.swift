import Foundation
import Testing

/// `Services/OPTIONS.md` is what the commands say of themselves.
struct OptionsPageTests {
    private static func help(_ program: String, _ arguments: [String]) throws -> String {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
            .deletingLastPathComponent().appendingPathComponent(program)
        process.arguments = arguments + ["--help"]
        let output = Pipe()
        process.standardOutput = output
        try process.run()
        let data = output.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        return String(decoding: data, as: UTF8.self)
    }

    /// `make options` writes the page anew.
    @Test func everyOptionIsDocumentedAsItsCommandShowsIt() throws {
        let page = try String(
            contentsOf: Repository.root.appendingPathComponent("Services/OPTIONS.md"), encoding: .utf8)
        let commands = try Self.help("ironling", []).split(separator: "\n").filter { $0.hasPrefix("  ") }
            .map { $0.prefix { $0 != "\t" }.split(separator: " ").map(String.init) }
        #expect(commands.count > 3)
        let calls =
            commands.map { ("ironling", $0) }
            + ["gateway", "attention", "experts", "sampler"].map { ("ironling-\($0)", []) }
        for (program, arguments) in calls {
            let text = try Self.help(program, arguments).trimmingCharacters(in: .newlines)
            #expect(text.contains("--help"), "\(program) \(arguments)")
            #expect(page.contains(text), "\(([program] + arguments).joined(separator: " ")): run make options")
        }
    }
}
