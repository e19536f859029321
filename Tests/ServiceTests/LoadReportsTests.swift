import Checkpoint
import ServiceSupport
import Testing

struct LoadReportsTests {
    private static let second: Int64 = 1_000_000_000
    private static let gibibyte = 1 << 30

    private static func loading(_ done: Int, of total: Int) -> LoadProgress {
        LoadProgress(.loading, done: done * gibibyte / 10, total: total * gibibyte / 10)
    }

    @Test func whatIsQuickIsNotTold() {
        var reports = LoadReports(start: 0)
        #expect(reports.text(Self.loading(1, of: 2), now: LoadReports.pause - 1) == nil)
        #expect(reports.text(Self.loading(2, of: 2), now: 2 * Self.second) == nil)
    }

    @Test func whatTakesLongIsToldAtIntervalsAndEndsWithNothing() {
        var reports = LoadReports(start: 0)
        let now = LoadReports.pause
        #expect(reports.text(Self.loading(31, of: 120), now: now) == "loading weights, 3.1 of 12.0 GiB (25 %)")
        #expect(reports.text(Self.loading(32, of: 120), now: now + 1) == nil)
        let digesting = LoadProgress(.digesting, done: 1, total: 3)
        #expect(
            reports.text(digesting, now: 2 * now)?.hasPrefix("digesting weights, once for these files, 0.0") == true)
        #expect(reports.text(Self.loading(120, of: 120), now: 2 * now + 1) == "")
        #expect(reports.text(Self.loading(120, of: 120), now: 2 * now + 2) == nil)
    }

    @Test func aModelWithoutBytesIsNothingToReport() {
        var reports = LoadReports(start: 0)
        #expect(reports.text(LoadProgress(.digesting, done: 0, total: 0), now: 9 * Self.second) == nil)
    }
}
