import Testing

extension Rule {
    /// Rooms that hold cores: values that decide.
    private static let cores: Set = ["StatePools", "Scheduling", "EngineCore", "GatewayCore", "Connections"]

    /// Mutating functions of cores that assert nothing. It only ever falls.
    private static let mostUnassertedFunctions = 67

    static let coreAssertions = coreAssertions(most: mostUnassertedFunctions)

    /// Those of three lines, brackets included, do one thing, which asserts for itself.
    fileprivate static func coreAssertions(most: Int) -> Rule {
        Rule(name: "what changes a core asserts what must hold") { repository in
            let findings = repository.productFiles.filter { cores.contains(Repository.room(of: $0.path)) }
                .flatMap { file in
                    (file.swift?.declarations ?? []).filter { declaration in
                        declaration.keyword == "func" && declaration.modifiers.contains("mutating")
                            && declaration.lineCount > 3
                            && declaration.bodyWords.isDisjoint(with: [
                                "assert", "assertionFailure", "precondition", "preconditionFailure",
                            ])
                    }.map { Finding(path: file.path, line: $0.line, sentence: "\($0.name) asserts nothing") }
                }
            return findings.count > most ? findings : []
        }
    }
}

struct CoreRuleTests {
    @Test func functionsThatChangeACoreAndAssertNothingAreFound() {
        let text = """
            struct A {
                mutating func silent() {
                    count += 1
                    // assert(count > 0)
                    total += count
                }
                mutating func stated() {
                    precondition(count >= 0)
                    count += 1
                    total += count
                }
                mutating func forwards() {
                    part.change()
                }
                func reads() -> Int {
                    let a = count
                    return a
                }
            }

            """
        let sample: Repository = .init(["Sources/StatePools/A.swift": text, "Sources/HTTP/A.swift": text])
        expect(Rule.coreAssertions(most: 0), on: sample, finds: ["Sources/StatePools/A.swift:2"])
        expect(Rule.coreAssertions(most: 1), on: sample, finds: [])
    }
}
