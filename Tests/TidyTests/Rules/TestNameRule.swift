import Testing

extension Rule {
    /// Forms that tell what a fault did. Within a clause they are fine ("whatWasMeantIsGuessed"), so a name that also says
    /// something in the present is left alone.
    private static let past: Set = [
        "was", "were", "had", "did", "took", "held", "kept", "ended", "waited", "outlived", "left", "lost", "went",
        "gave",
        "came", "sent", "hung", "became", "ran", "stopped", "leaked", "dropped", "failed", "said", "showed", "used",
        "made",
        "broke", "fell", "forgot", "ate",
    ]
    private static let present: Set = [
        "is", "are", "has", "have", "does", "do", "can", "cannot", "must", "may", "takes", "counts", "answers", "holds",
        "ends",
        "replays", "gives", "says", "refuses", "read", "keeps", "stays", "stay", "comes", "goes", "begins", "names",
        "passes",
    ]

    static let testNames = Rule(name: "tests are named for what holds") { repository in
        repository.swiftFiles.filter(\.isTest).flatMap { file in
            (file.swift?.declarations ?? []).filter { declaration in
                guard declaration.keyword == "func", declaration.modifiers.contains("Test") else { return false }
                let words = words(of: declaration.name)
                return !words.isDisjoint(with: past) && words.isDisjoint(with: present)
            }.map { Finding(path: file.path, line: $0.line, sentence: "\($0.name) tells what once was") }
        }
    }

    private static func words(of name: String) -> Set<String> {
        var words: [String] = [""]
        for character in name {
            if character.isUppercase { words.append("") }
            words[words.count - 1] += character.lowercased()
        }
        return Set(words)
    }
}

struct TestNameRuleTests {
    @Test func namesOfOldFaultsAreFound() {
        let sample: Repository = .init([
            "Tests/ATests/ATests.swift": """
            @Test func aClosedPoolWasNeverFreed() {}
            @Test(arguments: [1]) func servicesOutlivedTheirCommand(_ a: Int) {}
            @Test func whatWasMeantIsGuessed() {}
            @Test func aClosedClusterIsFreed() {}
            func wasNeverFreed() {}

            """
        ])
        expect(Rule.testNames, on: sample, finds: [1, 2].map { "Tests/ATests/ATests.swift:\($0)" })
    }
}
