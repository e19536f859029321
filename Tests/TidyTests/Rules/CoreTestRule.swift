import Testing

extension Rule {
    /// Rooms of which every event in every state can be held to an expectation.
    private static let coreRooms: Set = ["StatePools", "Scheduling", "EngineCore", "GatewayCore"]
    /// Structs whose tests have another name, each with its reason. None is left: keep it so.
    private static let testedElsewhere: [String: String] = [:]
    /// Of these, at most. It only ever falls.
    private static let mostTestedElsewhere = 0

    static let coreTests = coreTests(exempt: testedElsewhere, atMost: mostTestedElsewhere)

    fileprivate static func coreTests(exempt: [String: String], atMost limit: Int) -> Rule {
        Rule(name: "what changes in a core has tests of its name") { repository in
            var findings: [Finding] = []
            var needless = exempt
            for file in repository.productFiles {
                let room = Repository.room(of: file.path)
                guard file.path.hasPrefix("Sources/"), coreRooms.contains(room) else { continue }
                let changing = (file.swift?.declarations ?? []).filter {
                    $0.keyword == "struct" && $0.isSeenOutsideItsModule && $0.bodyWords.contains("mutating")
                }
                for type in changing where !isTested(type.name, in: room, repository) {
                    if needless.removeValue(forKey: type.name) != nil { continue }
                    let sentence = "\(type.name) has no \(type.name)Tests.swift below Tests/\(room)Tests"
                    findings.append(Finding(path: file.path, line: type.line, sentence: sentence))
                }
            }
            let path = "Tests/TidyTests/Rules/CoreTestRule.swift"
            findings += needless.keys.sorted().map {
                Finding(path: path, line: 0, sentence: "\($0) needs no exemption")
            }
            guard exempt.count > limit else { return findings }
            let sentence = "\(exempt.count) structs are exempt, of at most \(limit)"
            return findings + [Finding(path: path, line: 0, sentence: sentence)]
        }
    }

    private static func isTested(_ name: String, in room: String, _ repository: Repository) -> Bool {
        repository.swiftFiles.contains {
            $0.path.hasPrefix("Tests/\(room)Tests/") && $0.name == "\(name)Tests.swift"
        }
    }
}

struct CoreTestRuleTests {
    private let sample: Repository = .init([
        "Sources/Scheduling/A.swift": """
        public struct A {
            public mutating func f() {}
        }
        package struct B {
            mutating func f() {}
        }
        struct C {
            mutating func f() {}
        }
        public struct D {
            func f() {}  // mutating
        }
        public struct E {
            mutating func f() {}
        }

        """,
        "Sources/HTTP/A.swift": "public struct F {\n    mutating func f() {}\n}\n",
        "Tests/SchedulingTests/Deep/ATests.swift": "@Suite struct ATests {}\n",
        "Tests/EngineCoreTests/BTests.swift": "@Suite struct BTests {}\n",
    ])

    @Test func structsWithoutTestsOfTheirNameAreFound() {
        let found = [4, 13].map { "Sources/Scheduling/A.swift:\($0)" }
        expect(Rule.coreTests(exempt: [:], atMost: 0), on: sample, finds: found)
    }

    @Test func exemptionsAreFewAndNeeded() {
        let rule = "Tests/TidyTests/Rules/CoreTestRule.swift:0"
        let exempt = ["B": "its model is tested", "E": "its model is tested"]
        expect(Rule.coreTests(exempt: exempt, atMost: 2), on: sample, finds: [])
        expect(Rule.coreTests(exempt: exempt, atMost: 1), on: sample, finds: [rule])
        let needless = exempt.merging(["A": "it has tests", "G": "it is gone"]) { $1 }
        expect(Rule.coreTests(exempt: needless, atMost: 4), on: sample, finds: [rule, rule])
    }
}
