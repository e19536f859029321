import Testing

extension Rule {
    /// A machine that has other things to do is no fault of what is tested. A clock may bound a wait; time that was taken
    /// is compared in benchmarks, and bounded on the loops of a `MemoryNetwork`.
    static let testTimes = Rule(name: "no test depends on how busy the machine is") { repository in
        repository.swiftFiles.filter { $0.isTest && !$0.path.contains("/Benchmarks/") }.flatMap { file in
            (file.swift?.code ?? []).enumerated().compactMap { number, line in
                guard line.contains("Clock"), line.contains(#/(?:Continuous|Suspending)Clock(?:\(\)|\.now -)/#) else {
                    return nil
                }
                return Finding(
                    path: file.path, line: number + 1, sentence: "takes the time of a machine that is shared")
            }
        }
    }
}

struct TestTimeRuleTests {
    @Test func timesThatAreTakenAreFound() {
        let sample: Repository = .init([
            "Tests/ATests/ATests.swift": """
            let end = ContinuousClock.now + .seconds(10)
            while ContinuousClock.now < end {}
            #expect(ContinuousClock.now - begin < .seconds(2))
            let clock = SuspendingClock()
            // ContinuousClock()

            """,
            "Tests/Benchmarks/Bench/A.swift": "let clock = ContinuousClock()\n",
        ])
        expect(Rule.testTimes, on: sample, finds: [3, 4].map { "Tests/ATests/ATests.swift:\($0)" })
    }
}
