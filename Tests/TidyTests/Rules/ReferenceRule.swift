import Testing

extension Rule {
    static let references = Rule(name: "what comments and documents refer to is there") { repository in
        let targets = Targets(repository)
        return repository.files.flatMap { file -> [Finding] in
            let lines = file.swift?.comments ?? file.lines.map(String.init)
            var previous: Substring = ""
            return lines.enumerated().flatMap { number, line -> [Finding] in
                let sentences = targets.unresolved(in: line, after: previous, of: file)
                previous = line.suffix(80)
                return sentences.map { Finding(path: file.path, line: number + 1, sentence: $0) }
            }
        }
    }
}

/// Everything that can be referred to.
private struct Targets {
    /// Documents of others, which keep their section numbers.
    private static let othersDocuments = ["RFC", "Trace Context", "WHATWG HTML", "cookbook", "Chen and Goodman"]
    /// Words for documents that are not in the repository.
    private static func lostDocument(in line: String) -> String? {
        if line.contains("first design") { return "a first design" }
        if line.contains(#/\brule \d/#) { return "a numbered rule" }
        return line.contains("pec") && line.contains(#/\b[Ss]pec\b/#) ? "a spec" : nil
    }

    private static let folders: Set = [
        "Sources", "Services", "Protocol", "Tests", "docs", "docker", "Models", ".ci", "examples",
    ]

    private let paths: Set<String>
    /// Swift files by name, as paths.
    private let files: [String: [String]]
    private var anchors: [String: Set<String>] = [:]
    private let sections: Set<String>

    init(_ repository: Repository) {
        paths = repository.paths
        files = Dictionary(grouping: paths.filter { $0.hasSuffix(".swift") }) { path in
            String(path.split(separator: "/").last ?? "")
        }
        for file in repository.files where file.path.hasSuffix(".md") {
            anchors[file.path] = MarkdownTable.anchors(of: file.text)
        }
        sections = MarkdownTable.sections(of: repository.file("Protocol/SPECIFICATION.md")?.text ?? "")
    }

    func unresolved(in line: String, after previous: Substring, of file: Repository.File) -> [String] {
        guard line.utf8.contains(where: { $0 != UInt8(ascii: " ") }) else { return [] }
        var sentences: [String] = []
        if line.contains("ection") { sentences += lostSections(line, previous, file) }
        if line.contains("docs/") { sentences += lostDocuments(line) }
        if line.contains("`") { sentences += MarkdownTable.quoted(line).compactMap(lostPath) }
        if file.path.hasSuffix(".md") { sentences += lostLinks(line, file) }
        if file.swift != nil || file.path.hasSuffix(".md") || file.path.hasSuffix(".json") {
            if let words = Self.lostDocument(in: line) { sentences.append("cites \(words)") }
        }
        return sentences
    }

    private func lostSections(_ line: String, _ previous: Substring, _ file: Repository.File) -> [String] {
        line.matches(of: #/\b[Ss]ections? (\d+(?:\.\d+)*)/#).compactMap { match in
            let before = previous + line[..<match.range.lowerBound]
            if Self.othersDocuments.contains(where: before.contains) { return nil }
            guard before.contains("SPECIFICATION") || file.path.hasPrefix("Protocol/") else {
                return "section \(match.1) of no document"
            }
            return sections.contains(String(match.1)) ? nil : "SPECIFICATION has no section \(match.1)"
        }
    }

    private func lostDocuments(_ line: String) -> [String] {
        line.matches(of: #/\bdocs/[\w-]+\.md(?:#([\w-]+))?/#).compactMap { match in
            let parts = match.0.split(separator: "#")
            guard let anchors = anchors[String(parts[0])] else { return "\(parts[0]) is not there" }
            return parts.count < 2 || anchors.contains(String(parts[1])) ? nil : "\(match.0) is no heading"
        }
    }

    private func lostLinks(_ line: String, _ file: Repository.File) -> [String] {
        line.matches(of: #/\]\(([^)\s]+)\)/#).compactMap { match in
            guard !match.1.contains(":") else { return nil }
            let parts = match.1.split(separator: "#", omittingEmptySubsequences: false)
            var folders = file.path.split(separator: "/").dropLast()
            for part in parts[0].split(separator: "/") where part != "." {
                if part == ".." { folders = folders.dropLast() } else { folders.append(part) }
            }
            let path = parts[0].isEmpty ? file.path : folders.joined(separator: "/")
            guard paths.contains(path) else { return "\(match.1) is not there" }
            guard parts.count > 1, let anchors = anchors[path] else { return nil }
            return anchors.contains(String(parts[1])) ? nil : "\(match.1) is no heading"
        }
    }

    /// A path between backticks, from the root, from a room, or a Swift file by its name. A folder of one letter stands for
    /// any.
    private func lostPath(_ text: String) -> String? {
        guard text.wholeMatch(of: #/[\w.+-]+(?:/[\w.+-]+)*/?/#) != nil else { return nil }
        let parts = text.split(separator: "/")
        guard !parts.contains(where: { $0.count == 1 }) else { return nil }
        let path = parts.joined(separator: "/")
        let isFound: Bool
        if parts.count > 1, Self.folders.contains(String(parts[0])) {
            isFound = paths.contains(path)
        } else if parts.count > 1, paths.contains("Sources/\(parts[0])") {
            isFound = ["", ".swift"].contains { paths.contains("Sources/\(path)\($0)") }
        } else if parts.last?.hasSuffix(".swift") == true {
            isFound = (files[String(parts[parts.count - 1])] ?? []).contains { "/\($0)".hasSuffix("/\(path)") }
        } else {
            isFound = true
        }
        return isFound ? nil : "`\(text)` is not there"
    }
}

struct ReferenceRuleTests {
    private static let documents: KeyValuePairs<String, String> = [
        "Protocol/SPECIFICATION.md":
            "# Protocol\n## 7. Methods\n### 7.1 Sampling fields\nsee section 7 and section 9\n",
        "docs/model.md": "# Model\n## Linear attention\nsee [chunks](#chunks), [us](model.md#linear-attention)\n",
        "Sources/Room/File.swift": """
        // as in section 7.1
        // SPECIFICATION,
        // section 7.1; SPECIFICATION section 7.2
        // RFC 9112 section 6
        // docs/model.md#linear-attention, docs/model.md#decay, docs/kernels.md
        // `Sources/Room/File.swift` `File.swift` `Room/File.swift` `Room/File` `/v1/models` `Services/X/Library`
        // `Sources/Room/Other.swift` `Other.swift` `Room/Other.swift` `Room/Other`
        // the first design
        // rule 4
        // the spec says
        let text = "section 3"

        """,
    ]

    @Test func whatIsNotThereIsFound() {
        expect(
            Rule.references, on: .init(Self.documents),
            finds: ["Protocol/SPECIFICATION.md:4", "docs/model.md:3"]
                + [1, 3, 5, 5, 7, 7, 7, 7, 8, 9, 10].map { "Sources/Room/File.swift:\($0)" })
    }
}
