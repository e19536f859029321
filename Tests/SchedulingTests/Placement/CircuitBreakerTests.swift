import Scheduling
import Testing

@Suite struct CircuitBreakerTests {
    private enum Event: CaseIterable { case sentEarly, sentInTime, succeeded, withdrawn, failed }

    /// A breaker that opens after two failures, for 1000 µs, and closes after two probes that went well.
    private static let limits: CircuitBreaker.Limits = {
        var limits = CircuitBreaker.Limits()
        (limits.failures, limits.openMicroseconds, limits.successes) = (2, 1000, 2)
        return limits
    }()

    private static func apply(_ event: Event, _ breaker: inout CircuitBreaker, failedAt time: UInt64 = 500) {
        switch event {
        case .sentEarly: breaker.sent(now: 999)
        case .sentInTime: breaker.sent(now: 1000)
        case .succeeded: breaker.succeeded()
        case .withdrawn: breaker.withdrawn()
        case .failed: breaker.failed(now: time)
        }
    }

    /// A state by the events that lead to it, whether requests pass before and at 1000 µs, and what each event makes of it.
    private struct Row {
        let path: [Event]
        let state: CircuitBreaker.State
        let passes: [Bool]
        let next: [CircuitBreaker.State]
    }

    private static func half(_ successes: Int, _ isProbing: Bool) -> CircuitBreaker.State {
        .halfOpen(successes: successes, isProbing: isProbing)
    }

    private static let rows: [Row] = {
        let (none, one) = (CircuitBreaker.State.closed(failures: 0), CircuitBreaker.State.closed(failures: 1))
        let (open, anew) = (CircuitBreaker.State.open(until: 1000), CircuitBreaker.State.open(until: 1500))
        let probe: [Event] = [.failed, .failed, .sentInTime]
        return [
            // Each event: sent early, sent in time, succeeded, withdrawn, failed.
            Row(path: [], state: none, passes: [true, true], next: [none, none, none, none, one]),
            Row(path: [.failed], state: one, passes: [true, true], next: [one, one, none, one, anew]),
            Row(
                path: [.failed, .failed], state: open, passes: [false, true],
                next: [open, half(0, true), open, open, open]),
            Row(
                path: probe, state: half(0, true), passes: [false, false],
                next: [half(0, true), half(0, true), half(1, false), half(0, false), anew]),
            Row(
                path: probe + [.withdrawn], state: half(0, false), passes: [true, true],
                next: [half(0, true), half(0, true), half(1, false), half(0, false), anew]),
            Row(
                path: probe + [.succeeded], state: half(1, false), passes: [true, true],
                next: [half(1, true), half(1, true), none, half(1, false), anew]),
            Row(
                path: probe + [.succeeded, .sentInTime], state: half(1, true), passes: [false, false],
                next: [half(1, true), half(1, true), none, half(1, false), anew]),
        ]
    }()

    @Test func everyStateAnswersEveryEvent() {
        for row in Self.rows {
            var breaker = CircuitBreaker(limits: Self.limits)
            for event in row.path { Self.apply(event, &breaker, failedAt: 0) }
            #expect(breaker.state == row.state)
            #expect([999, 1000].map { breaker.lets(now: $0) } == row.passes, "\(row.state)")
            for (event, next) in zip(Event.allCases, row.next) {
                var moved = breaker
                Self.apply(event, &moved)
                #expect(moved.state == next, "\(event) while \(row.state)")
                let opens = row.state != next && moved.opensUntil != nil
                #expect(moved.openings == breaker.openings + (opens ? 1 : 0), "\(event) while \(row.state)")
            }
        }
    }

    @Test func theBreakerOpensAfterFailuresInARowAndProbesOnce() {
        var limits = CircuitBreaker.Limits()
        limits.failures = 2
        limits.openMicroseconds = 1000
        var breaker = CircuitBreaker(limits: limits)
        breaker.failed(now: 0)
        breaker.succeeded()
        breaker.failed(now: 0)
        #expect(breaker.lets(now: 0), "not in a row")
        breaker.failed(now: 5)
        #expect(breaker.state == .open(until: 1005) && !breaker.lets(now: 1004) && breaker.lets(now: 1005))
        breaker.sent(now: 1005)
        #expect(!breaker.lets(now: 1006), "one probe at a time")
        breaker.failed(now: 1010)
        #expect(breaker.state == .open(until: 2010) && breaker.openings == 2)
        breaker.sent(now: 2010)
        breaker.withdrawn()
        #expect(breaker.lets(now: 2011), "a probe that was cancelled proves nothing")
        breaker.sent(now: 2011)
        breaker.succeeded()
        #expect(breaker.state == .closed(failures: 0))
    }

    @Test func anEndOfTimeIsNoTrap() {
        var breaker = CircuitBreaker(limits: Self.limits)
        for _ in 0..<2 { breaker.failed(now: .max - 1) }
        #expect(breaker.state == .open(until: .max) && !breaker.lets(now: .max - 1))
    }
}
