import Emulation
import TestSupport
import Testing

@Suite struct PacingScheduleTests {
    private let millisecond: UInt64 = 1_000_000

    @Test func aStepBeginsWhereTheLastShouldHaveEnded() {
        var schedule = PacingSchedule()
        let first = schedule.begin(picoseconds: 20_000_000_000, now: 100 * millisecond, continues: false)
        #expect(first == 120 * millisecond)
        schedule.finished(now: 120 * millisecond + 300_000)
        #expect(
            schedule.begin(picoseconds: 20_000_000_000, now: 121 * millisecond, continues: true) == 140 * millisecond)
        schedule.finished(now: 140 * millisecond + 500_000)
        #expect(schedule.record.steps == 2 && schedule.record.errorNanoseconds == 800_000)
        #expect(schedule.record.lateSteps == 1, "300 µs are 1.5 % of a step, 500 µs are 2.5 %")
        #expect(schedule.record.meanError == 0.02 && schedule.record.lostNanoseconds == 0)
        #expect(
            schedule.begin(picoseconds: 1_000_000_000, now: 200 * millisecond, continues: false) == 201 * millisecond)
    }

    /// However late the wake-ups are, they do not add up.
    @Test(arguments: 1...10 as ClosedRange<UInt64>)
    func latenessDoesNotAddUp(seed: UInt64) {
        var generator = SeededRandom(seed: seed)
        var schedule = PacingSchedule(speedup: 2)
        var now: UInt64 = 0
        for step in 0..<1000 {
            let end = schedule.begin(picoseconds: 10_000_000_000, now: now, continues: step > 0)
            #expect(end == UInt64(step + 1) * 5 * millisecond, "seed \(seed)")
            now = end + UInt64.random(in: 0...3_000_000, using: &generator)
            schedule.finished(now: now)
        }
        #expect(schedule.record.worstNanoseconds <= 3_000_000 && schedule.record.lostNanoseconds == 0)
    }

    @Test func whatCannotBeCaughtUpIsGivenUpAndCounted() {
        var schedule = PacingSchedule()
        _ = schedule.begin(picoseconds: 10_000_000_000, now: 0, continues: false)
        schedule.finished(now: 40 * millisecond)
        #expect(schedule.record.lostNanoseconds == 0, "short steps may be caught up")
        _ = schedule.begin(picoseconds: 10_000_000_000, now: 40 * millisecond, continues: true)
        schedule.finished(now: 100 * millisecond)
        #expect(schedule.record.lostNanoseconds == 80_000_000 && schedule.record.realTimeShare == 0.2)
        #expect(
            schedule.begin(picoseconds: 10_000_000_000, now: 100 * millisecond, continues: true) == 110 * millisecond)
        let before = schedule.record
        schedule.finished(now: 110 * millisecond)
        #expect(schedule.record.since(before).steps == 1 && schedule.record.since(before).lateSteps == 0)
    }
}
