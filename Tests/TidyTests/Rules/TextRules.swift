import Testing

extension Rule {
    /// Goes through the lines of files of all kinds.
    private static func lines(
        _ name: String, where isChecked: @escaping @Sendable (Repository.File) -> Bool = { _ in true },
        _ sentence: @escaping @Sendable (Substring) -> String?
    ) -> Rule {
        Rule(name: name) { repository in
            repository.files.filter(isChecked).flatMap { file in
                file.lines.enumerated().compactMap { number, line in
                    sentence(line).map { Finding(path: file.path, line: number + 1, sentence: $0) }
                }
            }
        }
    }

    static let nothingLeftForLater = lines("nothing is left for later") { line in
        let marks = ["TO" + "DO", "FIX" + "ME", "X" + "XX"]
        return marks.first { mark in
            line.contains(mark) && line.split { !$0.isLetter }.contains { $0 == mark }
        }.map { "leaves something for later: \($0)" }
    }

    static let noMachinePaths = lines("no path of a machine is written down") { line in
        let roots = ["work", "home", "root", "Users"].map { "/\($0)/" }
        // An address such as https://host/work/ is no path.
        guard !line.contains("://") else { return nil }
        return roots.first { line.contains($0) }.map { "names a folder of a machine: \($0)" }
    }

    static let wholeLastLines = Rule(name: "Swift files end in one newline") { repository in
        repository.swiftFiles.filter { !$0.text.hasSuffix("\n") || $0.text.hasSuffix("\n\n") }.map { file in
            Finding(path: file.path, line: 0, sentence: "does not end in one newline")
        }
    }

    static let noTraps = Rule(name: "nothing traps on purpose outside tests") { repository in
        repository.productFiles.flatMap { file -> [Finding] in
            (file.swift?.code ?? []).enumerated().compactMap { number, line in
                guard line.utf8.contains(UInt8(ascii: "!")) || line.contains("fatalError(") else { return nil }
                let sentence: String
                if line.contains(#/\b(try|as)!/#) {
                    sentence = "try! or as!"
                } else if line.contains(#/[\w\)\]]!(?![=\w])/#) {
                    sentence = "unwraps by force"
                } else if line.contains(#/\bfatalError\(/#) {
                    sentence = "fatalError"
                } else {
                    return nil
                }
                return Finding(path: file.path, line: number + 1, sentence: sentence)
            }
        }
    }
}

struct TextRuleTests {
    @Test func marksForLaterAreFound() {
        let sample: Repository = .init(["Sources/A/A.swift": "let a = 1\n// TO" + "DO: more\n"])
        expect(Rule.nothingLeftForLater, on: sample, finds: ["Sources/A/A.swift:2"])
    }

    @Test func pathsOfAMachineAreFoundAndAddressesAreNot() {
        let sample: Repository = .init(["docs/a.md": "see /ho" + "me/me/a\nsee https://host/ho" + "me/a\n"])
        expect(Rule.noMachinePaths, on: sample, finds: ["docs/a.md:1"])
    }

    @Test func brokenLastLinesAreFound() {
        let sample: Repository = .init([
            "Sources/A/A.swift": "let a = 1", "Sources/A/B.swift": "let b = 1\n\n", "Sources/A/C.swift": "let c = 1\n",
        ])
        expect(Rule.wholeLastLines, on: sample, finds: ["Sources/A/A.swift:0", "Sources/A/B.swift:0"])
    }

    @Test func trapsAreFoundInCodeOnly() {
        let sample: Repository = .init([
            "Sources/A/A.swift": """
            let a = try! f()  // try! is not ours
            let b = values.first!
            let c = "so! \\(values.last!) and !"
            let d = a != b && !c
            fatalError("never")

            """,
            "Tests/ATests/A.swift": "let a = try! f()\n",
        ])
        expect(Rule.noTraps, on: sample, finds: [1, 2, 3, 5].map { "Sources/A/A.swift:\($0)" })
    }
}
