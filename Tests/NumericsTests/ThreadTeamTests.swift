import Numerics
import Synchronization
import Testing

struct ThreadTeamTests {
    @Test(.timeLimit(.minutes(1)), arguments: 1...4)
    func everyPartRunsExactlyOnce(threadCount: Int) {
        let team = ThreadTeam(threadCount: threadCount)
        #expect(team.threadCount == threadCount)
        let counts = Counts()
        var wrong = 0
        for run in 0..<10_000 {
            let parts = run % 17
            counts.reset()
            team.run(parts) { counts.add($0) }
            if !counts.areOne(below: parts) { wrong += 1 }
        }
        #expect(wrong == 0)
    }

    @Test func negativeCountsRunNothing() {
        ThreadTeam(threadCount: 2).run(-1) { _ in Issue.record("ran") }
        #expect(ThreadTeam(threadCount: 0).threadCount == 1)
    }

    @Test(.timeLimit(.minutes(1)))
    func teamsComeAndGo() {
        for _ in 0..<200 {
            let counts = Counts()
            ThreadTeam(threadCount: 3).run(9) { counts.add($0) }
            #expect(counts.areOne(below: 9))
        }
    }
}

/// How often each of a few parts has run.
private final class Counts: Sendable {
    private let counts = Mutex([Int](repeating: 0, count: 32))

    func reset() { counts.withLock { $0 = [Int](repeating: 0, count: 32) } }

    func add(_ part: Int) { counts.withLock { $0[part] += 1 } }

    func areOne(below parts: Int) -> Bool {
        counts.withLock { counts in counts.indices.allSatisfy { counts[$0] == ($0 < parts ? 1 : 0) } }
    }
}
