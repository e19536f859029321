import GatewayCore
import Testing

@Suite struct ProgressClockTests {
    private var clock = ProgressClock(limitMicroseconds: 30)

    @Test func aStreamWhoseInstanceGivesNoSignsIsLeftAlone() {
        var clock = clock
        clock.token(now: 5)
        #expect(!clock.isStalled(now: 1_000_000))
    }

    @Test func aStreamStandsStillWhenNeitherTokensNorWorkCome() {
        var clock = clock
        clock.sign(work: 7, now: 10)
        #expect(!clock.isStalled(now: 39) && clock.isStalled(now: 40))
    }

    @Test func signsOfTheSameWorkAreNoHeadway() {
        var clock = clock
        for now in stride(from: UInt64(10), through: 40, by: 5) { clock.sign(work: 7, now: now) }
        #expect(clock.isStalled(now: 40))
    }

    @Test func workOrATokenIsHeadway() {
        var clock = clock
        clock.sign(work: 7, now: 10)
        clock.sign(work: 8, now: 35)
        #expect(!clock.isStalled(now: 64))
        clock.token(now: 64)
        #expect(!clock.isStalled(now: 93) && clock.isStalled(now: 94))
    }

    /// An instance that was restarted counts from nothing.
    @Test func lessWorkIsHeadwayToo() {
        var clock = clock
        clock.sign(work: 7, now: 10)
        clock.sign(work: 0, now: 39)
        #expect(!clock.isStalled(now: 68))
    }

    @Test func timeThatRunsBackwardsIsNoStall() {
        var clock = clock
        clock.sign(work: 7, now: 100)
        #expect(!clock.isStalled(now: 0))
    }
}
