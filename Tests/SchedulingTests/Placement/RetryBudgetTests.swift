import Scheduling
import Serving
import TestSupport
import Testing

@Suite struct RetryBudgetTests {
    private static let window = RetryBudget.windowMicroseconds

    private func budget(floor: Int, share: Int) -> RetryBudget {
        var limits = RetryBudget.Limits()
        (limits.floor, limits.sharePercent) = (floor, share)
        return RetryBudget(limits: limits)
    }

    /// Which of `count` retries at one time the budget has room for.
    private func spend(_ count: Int, _ budget: inout RetryBudget, now: UInt64, burst: Int = 0) -> [Bool] {
        var answers: [Bool] = []
        for _ in 0..<count { answers.append(budget.spend(now: now, burst: burst)) }
        return answers
    }

    @Test func withoutRequestsTheFloorIsAllThereIs() {
        var budget = budget(floor: 3, share: 20)
        #expect(budget.remaining(now: 5) == 3)
        #expect(spend(5, &budget, now: 5) == [true, true, true, false, false])
        #expect(budget.remaining(now: 5) == 0 && budget.refusals == 2)
    }

    /// Whether a retry is granted at once, at the end of the window and after it, or when one fault may cause two.
    @Test func everyStateAnswersEveryRetry() {
        let rows: [(retries: Int, requests: Int, granted: [Bool])] = [
            (0, 0, [true, true, true, true]), (1, 0, [false, false, true, true]), (0, 5, [true, true, true, true]),
            (1, 5, [true, true, true, true]), (2, 5, [false, false, true, true]), (3, 10, [false, false, true, true]),
        ]
        for (retries, requests, granted) in rows {
            var budget = budget(floor: 1, share: 20)
            for _ in 0..<requests { budget.placed(now: 0) }
            #expect(spend(retries, &budget, now: 0).allSatisfy { $0 })
            let events: [(now: UInt64, burst: Int)] = [
                (0, 0), (Self.window + 999_999, 0), (Self.window + 1_000_000, 0), (0, 2),
            ]
            let answers = events.map { event in
                var moved = budget
                return moved.spend(now: event.now, burst: event.burst)
            }
            #expect(answers == granted, "\(retries) retries, \(requests) requests")
        }
    }

    @Test func everyFifthRequestAddsARetry() {
        var budget = budget(floor: 0, share: 20)
        for _ in 0..<4 { budget.placed(now: 0) }
        #expect(spend(1, &budget, now: 0) == [false], "four fifths of a retry")
        budget.placed(now: 0)
        #expect(spend(2, &budget, now: 1) == [true, false])
    }

    @Test func whatIsSpentComesBackWhenTheWindowHasPassedAndNoSooner() {
        var budget = budget(floor: 1, share: 0)
        #expect(spend(1, &budget, now: 999_999) == [true])
        #expect(spend(1, &budget, now: 999_999 + Self.window) == [false])
        #expect(spend(1, &budget, now: 1_000_000 + Self.window) == [true])
    }

    @Test func requestsOfThePastGiveNothing() {
        var budget = budget(floor: 0, share: 100)
        for second in 0..<20 { budget.placed(now: UInt64(second) * 1_000_000) }
        #expect(budget.remaining(now: 19_000_000) == 11, "ten seconds and the one under way")
        #expect(budget.remaining(now: 29_000_000) == 1)
        #expect(budget.remaining(now: 30_000_000) == 0)
        #expect(spend(1, &budget, now: .max) == [false])
    }

    /// The largest instance holds more than the floor: its death must not cost a request.
    @Test func aFaultOfOneInstanceIsAlwaysWithinTheBudget() {
        var budget = budget(floor: 2, share: 0)
        #expect(spend(6, &budget, now: 0, burst: 5) == [true, true, true, true, true, false])
        #expect(spend(1, &budget, now: 0) == [false] && budget.remaining(now: 0) == 0)
    }

    @Test func figuresOutOfRangeAreNoTrap() {
        var wide = budget(floor: .max, share: .max)
        wide.placed(now: .max)
        #expect(spend(1, &wide, now: .max, burst: .max) == [true] && wide.remaining(now: 0, burst: .max) > 1 << 39)
        var narrow = budget(floor: .min, share: .min)
        narrow.placed(now: 0)
        #expect(spend(1, &narrow, now: 0, burst: .min) == [false] && narrow.remaining(now: 0) == 0)
    }

    /// Random requests and faults: the budget is what a list of all events says, and whatever the times are, no more is
    /// retried than the share of all requests, and the floor for every window.
    @Test(arguments: 1...40 as ClosedRange<UInt64>)
    func theBudgetIsWhatAListOfAllEventsSays(seed: UInt64) {
        var random = SeededRandom(seed: seed)
        let floor = Int.random(in: 0...8, using: &random)
        let share = Int.random(in: 0...100, using: &random)
        let pause = UInt64.random(in: 1...2_000_000, using: &random)
        var budget = budget(floor: floor, share: share)
        var now = UInt64.random(in: 0...100_000_000, using: &random)
        let start = now
        var model = RetryModel()
        for step in 0..<3000 {
            now += Bool.random(using: &random) ? 0 : UInt64.random(in: 0...pause, using: &random)
            let burst = Int.random(in: 0...9, using: &random) == 0 ? floor + 1 : 0
            let left = model.remaining(now: now, floor: max(floor, burst), share: share)
            #expect(budget.remaining(now: now, burst: burst) == left, "seed \(seed), step \(step)")
            if Bool.random(using: &random) {
                budget.placed(now: now)
                model.requests.append(now)
            } else {
                let isSpent = budget.spend(now: now, burst: burst)
                #expect(isSpent == (left > 0), "seed \(seed), step \(step)")
                if isSpent { model.retries.append(now) }
            }
        }
        let windows = Int((now - start) / Self.window) + 1
        let most = windows * (floor + 1) + model.requests.count * share / 100
        #expect(model.retries.count <= most, "seed \(seed): \(model.retries.count) retries, not \(most)")
        for first in model.retries {
            let count = model.retries.count { $0 >= first && $0 < first + Self.window }
            let backing = model.requests.count { $0 + Self.window + 1_000_000 > first && $0 < first + Self.window }
            #expect(count <= floor + 1 + backing * share / 100, "seed \(seed): \(count) retries from \(first) on")
        }
    }
}

/// All that ever happened.
private struct RetryModel {
    var requests: [UInt64] = []
    var retries: [UInt64] = []

    func remaining(now: UInt64, floor: Int, share: Int) -> Int {
        let second: UInt64 = 1_000_000
        func recent(_ times: [UInt64]) -> Int { times.count { $0 / second + 10 >= now / second } }
        return max(0, floor + recent(requests) * share / 100 - recent(retries))
    }
}
