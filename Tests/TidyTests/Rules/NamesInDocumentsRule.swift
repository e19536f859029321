import Testing

extension Rule {
    /// `Type` and `Type.member` between backticks of a document; other words there are commands, fields and paths.
    static let namesInDocuments = Rule(name: "names of the sources in documents exist") { repository in
        let words = repository.swiftFiles.compactMap { $0.swift?.words }
        let places = Set(repository.paths.compactMap { $0.split(separator: "/").last?.split(separator: ".").first })
        let isDocument: (Repository.File) -> Bool = {
            $0.path.hasPrefix("docs/") && $0.path.hasSuffix(".md") || $0.path == "CONTRIBUTING.md"
        }
        return repository.files.filter(isDocument).flatMap { file in
            file.lines.enumerated().flatMap { number, line in
                MarkdownTable.quoted(line).filter { name in
                    guard name.first?.isUppercase == true, name.contains(where: \.isLowercase),
                        name.utf8.allSatisfy({ SwiftText.isWord($0) || $0 == UInt8(ascii: ".") }),
                        !repository.paths.contains(name), !places.contains(name[...]), !name.hasSuffix(".swift")
                    else { return false }
                    let parts = name.split(separator: ".").map(String.init)
                    return !words.contains { words in parts.allSatisfy { words[$0] != nil } }
                }.map { Finding(path: file.path, line: number + 1, sentence: "`\($0)` is not in the sources") }
            }
        }
    }
}

struct NamesInDocumentsRuleTests {
    @Test func namesThatAreNotThereAreFound() {
        let sample: Repository = .init([
            "docs/a.md": "`Pools.take` and `Pools`\n`Pools.give` or `Pool` but `make test`, `--Pool`, `POOL`, `pool`\n",
            "Sources/A/A.swift": "struct Pools { func take() {} }  // Pool\n",
            "Sources/A/B.swift": "func give() {}\n",
        ])
        expect(Rule.namesInDocuments, on: sample, finds: ["docs/a.md:2", "docs/a.md:2"])
    }
}

/// What docs/architecture.md promises of a request.
struct ArchitectureTests {
    /// Types that a request is described by on its whole way. It only ever falls.
    private static let mostTypes = 14

    private static let page = Repository.here.file("docs/architecture.md")?.text ?? ""

    @Test func theTypesOfARequestAreFew() {
        let types = MarkdownTable.rows(of: Self.page, under: "Types of a request").map(\.[0])
        #expect(types.count <= Self.mostTypes && Set(types).count == types.count && types.count > 5)
        #expect(types.allSatisfy { MarkdownTable.quoted($0).count == 1 })
    }

    @Test func everyRoomHasItsPlace() {
        let cells = MarkdownTable.rows(of: Self.page, under: "Rooms").map(\.[1]).joined(separator: " ")
        let named = Set(MarkdownTable.quoted(cells).compactMap { $0.split(separator: "/").last.map(String.init) })
        let rooms = Set(Repository.here.productFiles.map { Repository.room(of: $0.path) })
        #expect(rooms.subtracting(named).isEmpty, "not in the table of docs/architecture.md")
    }

    @Test func aRequestsLifeHasEightSteps() {
        let steps = MarkdownTable.section(of: Self.page, "A request's life").filter {
            $0.prefixMatch(of: #/\d\. /#) != nil
        }
        #expect(steps.count == 8 && zip(1..., steps).allSatisfy { $1.hasPrefix("\($0). ") })
    }

    @Test func everyDecisionHasOneQueue() {
        let decisions = MarkdownTable.rows(of: Self.page, under: "Queues").map { $0[0] }
        #expect(decisions.count > 2 && Set(decisions).count == decisions.count)
    }

    @Test func everyKernelStepHasAName() {
        let page = Repository.here.file("docs/kernels.md")?.text ?? ""
        for (heading, folder) in [("V2", "FusedMoEV2"), ("V1", "FusedMoEV1")] {
            let rows = MarkdownTable.rows(of: page, under: heading)
            #expect(rows.count > 3)
            let words = Repository.here.productFiles.filter { $0.path.contains("Kernels/\(folder)/") }
                .compactMap { $0.swift?.words }
            for name in rows.flatMap({ MarkdownTable.quoted($0[2]) }) {
                #expect(words.contains { $0[name] != nil }, "\(folder) has no \(name)")
            }
        }
    }
}
