import Testing

extension Rule {
    static let all = [
        nothingLeftForLater, noMachinePaths, wholeLastLines, noTraps, imports, shortFunctions, references, testNames,
        noChainedWrites, noDeadDeclarations, confinement, namesInDocuments, statedErrors, statedShapes,
        sourcesOfKernels, testTimes, coreAssertions, coreTests,
    ]
}

struct CleanRepositoryTests {
    @Test(arguments: Rule.all) func theRepositoryKeepsTheRule(_ rule: Rule) {
        for finding in rule.findings(.here) { Issue.record("\(rule.name): \(finding)") }
    }

    @Test func theRepositoryIsRead() {
        #expect(Repository.here.swiftFiles.count > 300)
        #expect(Repository.here.productFiles.flatMap { $0.swift?.declarations ?? [] }.count > 3000)
    }
}

/// A rule is shown to fire, and only where it should.
func expect(
    _ rule: Rule, on sample: Repository, finds places: [String], sourceLocation: SourceLocation = #_sourceLocation
) {
    let found = rule.findings(sample).map { "\($0.path):\($0.line)" }
    #expect(found == places, "\(rule.findings(sample))", sourceLocation: sourceLocation)
}
