import Foundation
import Testing

/// The house rules that a machine can check, after TigerBeetle's `tidy`.
struct TidyTests {
    private static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()

    private struct File {
        /// Path from the repository's root.
        let path: String
        let text: String

        var lines: [Substring] { text.split(separator: "\n", omittingEmptySubsequences: false) }
        var isTest: Bool { path.hasPrefix("Tests/") }
    }

    /// Files below `folders` with one of these endings; what is built or given is left out.
    private static func files(_ folders: [String], _ endings: [String]) throws -> [File] {
        try folders.flatMap { folder -> [File] in
            let paths = try FileManager.default.subpathsOfDirectory(atPath: root.appendingPathComponent(folder).path)
            return try paths.sorted().filter { path in
                endings.contains { path.hasSuffix($0) } && !path.contains("Fixtures/") && !path.contains("/.build/")
            }.map { path in
                let url = root.appendingPathComponent(folder).appendingPathComponent(path)
                return File(path: "\(folder)/\(path)", text: try String(contentsOf: url, encoding: .utf8))
            }
        }
    }

    private static func swiftFiles() throws -> [File] {
        try files(["Sources", "Services", "Protocol", "Tests"], [".swift"])
    }

    /// A line without its comment and with its literals emptied.
    private static func code(_ line: Substring) -> String {
        var line = String(line)
        line.replace(#/"(?:[^"\\]|\\.)*"/#, with: "\"\"")
        line.replace(#/\/\/.*/#, with: "")
        return line
    }

    @Test func nothingTrapsOnPurposeOutsideTests() throws {
        for file in try Self.swiftFiles() where !file.isTest {
            var isLiteral = false
            for (number, line) in file.lines.enumerated() {
                let quotes = line.ranges(of: "\"\"\"").count
                if quotes == 1 { isLiteral.toggle() }
                guard !isLiteral, quotes == 0 else { continue }
                let code = Self.code(line)
                let place = "\(file.path):\(number + 1): \(line.trimmingCharacters(in: .whitespaces))"
                #expect(!code.contains(#/\b(try|as)!/#), "\(place)")
                #expect(!code.contains(#/[\w\)\]]!(?![=\w])/#), "force unwrap: \(place)")
                #expect(!code.contains(#/\bfatalError\(/#), "\(place)")
            }
        }
    }

    @Test func nothingIsLeftForLater() throws {
        let marks = ["TO" + "DO", "FIX" + "ME", "X" + "XX"]
        let files =
            try Self.swiftFiles()
            + Self.files(["Protocol", "Tests"], [".py", ".md", ".c", ".cpp", "run"])
        for file in files {
            for (number, line) in file.lines.enumerated() {
                #expect(!marks.contains { line.contains($0) }, "\(file.path):\(number + 1)")
            }
        }
    }

    @Test func filesAreShortEnoughToRead() throws {
        for file in try Self.swiftFiles() {
            let limit = 350
            #expect(file.lines.count <= limit, "\(file.path) has \(file.lines.count) lines, the limit is \(limit)")
            #expect(
                file.text.hasSuffix("\n") && !file.text.hasSuffix("\n\n"), "\(file.path) does not end in one newline")
        }
    }

    @Test func noPathOfAMachineIsWrittenDown() throws {
        let roots = ["work", "home", "root", "Users"].map { "/\($0)/" }
        let documents = try ["README.md", "CONTRIBUTING.md", "Makefile", "Package.swift"].map { name in
            File(path: name, text: try String(contentsOf: Self.root.appendingPathComponent(name), encoding: .utf8))
        }
        let files =
            try Self.swiftFiles() + documents
            + Self.files(
                ["Protocol", "Tests", ".ci", "Sources", "Services"], [".py", ".md", ".c", ".cpp", "run", "setup"])
        for file in files {
            for (number, line) in file.lines.enumerated() {
                for root in roots where line.contains(root) {
                    // An address such as https://host/work/ is no path.
                    #expect(line.contains("://"), "\(file.path):\(number + 1): \(line)")
                }
            }
        }
    }

    // MARK: Arrows

    /// What a room may import; nil is anything.
    private struct Row {
        let allowed: Set<String>?
    }

    /// The table of CONTRIBUTING.md by room.
    private static func arrows() throws -> [String: Row] {
        let text = try String(contentsOf: root.appendingPathComponent("CONTRIBUTING.md"), encoding: .utf8)
        let modules = [
            "libuv": "CLibuv", "ISA-L": "CISAL", "libcrypto": "CCrypto", "http-parser": "CHTTPParser",
            "PCRE2": "CPCRE2", "XXHash": "CXXHash",
        ]
        var arrows: [String: Row] = [:]
        for line in text.split(separator: "\n") where line.hasPrefix("| `") {
            let cells = line.split(separator: "|").map { $0.trimmingCharacters(in: .whitespaces) }
            guard cells.count == 3 else { continue }
            let rooms = cells[0].matches(of: #/`([^`]+)`/#).map { String($0.1) }
            let names = rooms.map {
                $0 == "Protocol/Swift" ? "WireProtocol" : String($0.split(separator: "/").last ?? "")
            }
            let imports = cells[2].split(separator: ",").map { name -> String in
                let name = name.trimmingCharacters(in: .whitespaces)
                return modules[name] ?? name
            }
            for room in rooms {
                let allowed = Set(imports.filter { $0 != "–" }).union(names)
                arrows[room] = Row(allowed: imports.contains { $0.hasPrefix("any") } ? nil : allowed)
            }
        }
        return arrows
    }

    @Test func roomsImportOnlyWhatTheTableAllows() throws {
        let arrows = try Self.arrows()
        let sources = try FileManager.default.contentsOfDirectory(
            atPath: Self.root.appendingPathComponent("Sources").path)
        let rooms =
            sources.filter { !$0.hasPrefix("C") || $0 == "Checkpoint" }.map { "Sources/\($0)" } + ["Protocol/Swift"]
        let system: Set = ["Foundation", "Glibc", "Synchronization"]
        #expect(rooms.count > 10)
        for room in rooms.sorted() {
            guard let row = arrows[room] else {
                Issue.record("\(room) is not in the table of CONTRIBUTING.md")
                continue
            }
            guard let allowed = row.allowed else { continue }
            for file in try Self.files([room], [".swift"]) {
                for match in file.text.matches(of: #/(?m)^(?:@\w+ )?import (?:struct |class |func )?(\w+)/#) {
                    let module = String(match.1)
                    #expect(
                        allowed.contains(module) || system.contains(module),
                        "\(file.path) imports \(module), the table allows \(allowed.sorted())")
                }
            }
        }
    }

    // MARK: Options

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
        let page = try String(contentsOf: Self.root.appendingPathComponent("Services/OPTIONS.md"), encoding: .utf8)
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
