import Foundation
import Testing

/// The files that rules are about, by their paths from the repository's root. A sample of a few lines is one too, so that
/// every rule can be shown to fire.
struct Repository: Sendable {
    struct File: Sendable {
        let path: String
        let text: String
        /// Code and comments told apart, of a Swift file.
        let swift: SwiftText?

        init(_ path: String, _ text: String) {
            self.path = path
            self.text = text
            swift = path.hasSuffix(".swift") ? SwiftText(text) : nil
        }

        var lines: [Substring] { text.split(separator: "\n", omittingEmptySubsequences: false) }
        var isTest: Bool { path.hasPrefix("Tests/") }
        var name: Substring { path.split(separator: "/").last ?? "" }
    }

    let files: [File]
    /// Every file and folder, of whatever kind.
    let paths: Set<String>

    /// A sample.
    init(_ texts: KeyValuePairs<String, String>) {
        self.init(files: texts.map { File($0.key, $0.value) }, listed: [])
    }

    private init(files: [File], listed: [String]) {
        self.files = files
        var paths: Set<String> = []
        for path in files.map(\.path) + listed {
            var path = path
            while !path.isEmpty, paths.insert(path).inserted {
                path = path.lastIndex(of: "/").map { String(path[..<$0]) } ?? ""
            }
        }
        self.paths = paths
    }

    static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()

    /// This one, read once. Fixtures are given, what is built is not ours: both are paths only.
    static let here: Repository = {
        let endings = [".swift", ".md", ".py", ".c", ".cpp", ".h", ".json", "run", "setup", "Makefile"]
        var files: [File] = []
        var listed: [String] = []
        let manager = FileManager.default
        for top in (try? manager.contentsOfDirectory(atPath: root.path)) ?? [] where !hidden.contains(top) {
            let below = (try? manager.subpathsOfDirectory(atPath: root.appendingPathComponent(top).path)) ?? []
            for path in [top] + below.map({ "\(top)/\($0)" }).sorted() {
                listed.append(path)
                guard endings.contains(where: path.hasSuffix), !path.contains("Fixtures/"),
                    let text = try? String(contentsOf: root.appendingPathComponent(path), encoding: .utf8)
                else { continue }
                files.append(File(path, text))
            }
        }
        return Repository(files: files, listed: listed)
    }()

    private static let hidden: Set = [".git", ".build", ".swiftpm"]

    var swiftFiles: [File] { files.filter { $0.swift != nil } }
    /// What is built into the executables.
    var productFiles: [File] {
        swiftFiles.filter { file in ["Sources/", "Services/", "Protocol/"].contains(where: file.path.hasPrefix) }
    }

    func file(_ path: String) -> File? { files.first { $0.path == path } }

    /// The room or service a product file belongs to.
    static func room(of path: String) -> String {
        let parts = path.split(separator: "/")
        return parts.count > 2 ? String(parts[1]) : ""
    }
}

/// A place that breaks a rule.
struct Finding: Sendable, CustomStringConvertible {
    let path: String
    /// Counted from 1; 0 is the whole file.
    let line: Int
    let sentence: String

    var description: String { "\(path):\(line): \(sentence)" }
}

/// Something a machine can check about the repository.
struct Rule: Sendable, CustomTestStringConvertible {
    /// What holds when nothing is found.
    let name: String
    let findings: @Sendable (Repository) -> [Finding]

    var testDescription: String { name }
}
