import Foundation
import Scheduling
import Testing
import WireProtocol

/// Streams that make no headway on an instance that is there all the same.
@Suite struct StalledStreamTests {
    private func fleet(_ fault: FailingFleet.Fault) throws -> FailingFleet {
        try FailingFleet(fault, instances: 2, slots: 4, retries: RetryBudget.Limits(), seed: 1)
    }

    @Test func aStreamThatStandsStillIsTakenElsewhereAndEndsInTheEnd() throws {
        let fleet = try fleet(.standsStill)
        let begun = fleet.network.now
        let failures = try fleet.failures(count: 1, atOnce: 1)
        #expect(failures.map { $0?.code } == [.unavailable])
        #expect(failures[0]?.message.contains("made no headway") == true, "\(failures)")
        #expect(fleet.placements == 4, "once, and as often again as a request may be")
        #expect(fleet.network.now - begun < 150_000_000)
    }

    @Test func aPromptMayTakeAsLongAsItsInstanceWorks() throws {
        let fleet = try fleet(.worksLong)
        let begun = fleet.network.now
        #expect(try fleet.failures(count: 1, atOnce: 1) == [nil])
        #expect(fleet.placements == 1 && fleet.network.now - begun > 180_000_000)
    }

    /// It has all its tokens, so nobody needs to compute them again.
    @Test func aStreamWhoseEndWasLostEndsAllTheSame() throws {
        let fleet = try fleet(.lostEnd)
        let begun = fleet.network.now
        #expect(try fleet.failures(count: 1, atOnce: 1) == [nil])
        #expect(fleet.placements == 1 && fleet.network.now - begun < 60_000_000)
    }
}
