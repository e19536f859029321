import Scheduling
import StatePools
import Testing

@Suite struct TransferRecordTests {
    private static let ends: [(end: TransferEnd, label: String, words: String)] = [
        (.complete, "complete", "complete"), (.cancelled, "cancelled", "cancelled"),
        (.peerFailed("reset"), "peer_failed", "the peer failed: reset"),
        (.leaseExpired, "lease_expired", "lease_expired"), (.refused("too long"), "refused", "refused: too long"),
        (.superseded, "superseded", "superseded"),
    ]

    /// The record of a transfer that was accepted at 2 ms, if at all, and ended at 9 ms.
    private func record(_ end: TransferEnd, accepted: Bool, generation: UInt64 = 1) throws -> TransferRecord {
        let key = TransferKey(receiver: "decode-0", request: 7, generation: generation)
        var transfers = Transfers(isReceiver: false)
        _ = try transfers.open(key, peer: "decode-0", manifest: makeManifest(), hold: nil, now: 0)
        if accepted { _ = transfers.handle(.accepted(hold: nil), key, now: 2000) }
        _ = transfers.handle(.stop(end), key, now: 9000)
        #expect(transfers.counters.ends == [end.label: 1])
        return try #require(transfers.records.last)
    }

    @Test func everyEndIsNamedInEveryPhase() throws {
        for (end, label, words) in Self.ends {
            #expect(end.label == label && end.description == words)
            for (accepted, spans) in [(false, "waiting 9 ms"), (true, "waiting 2 ms, moving 7 ms")] {
                let record = try record(end, accepted: accepted)
                #expect(
                    record.description
                        == "transfer decode-0/7.1 with decode-0: \(words) after 9 ms, 0 bytes in 0 segments (\(spans))")
            }
        }
    }

    @Test func recordsAreEqualWhenAllOfThemIs() throws {
        let record = try record(.cancelled, accepted: true)
        let same = try self.record(.cancelled, accepted: true)
        let others = try [
            self.record(.leaseExpired, accepted: true), self.record(.cancelled, accepted: false),
            self.record(.cancelled, accepted: true, generation: 2),
        ]
        #expect(record == same && !others.contains(record))
    }

    @Test func keysAreOrderedByReceiverThenRequestThenGeneration() {
        let keys = [("a", 1, 2), ("a", 1, 3), ("a", 2, 1), ("b", 0, 0)].map {
            TransferKey(receiver: $0.0, request: UInt64($0.1), generation: UInt64($0.2))
        }
        for (index, key) in keys.enumerated() {
            for (other, second) in keys.enumerated() { #expect((key < second) == (index < other)) }
        }
    }
}
