import Scheduling
import Serving
import StatePools
import TestSupport
import Testing

/// Every way to end a hand-off, in every phase, on both sides, with and without a read or write in progress.
@Suite struct CancelSafetyTests {
    enum Cause: String, CaseIterable {
        case cancelled, peerDied, peerFroze, segmentRefused, requestForgotten, restarted
    }

    struct Cell: CustomTestStringConvertible {
        let path: [TransferEvent]
        let phase: String
        let cause: Cause
        let isAccessing: Bool

        var testDescription: String { "\(phase), \(cause.rawValue)\(isAccessing ? ", in mid-access" : "")" }
    }

    static func cells(_ paths: [(String, [TransferEvent])]) -> [Cell] {
        paths.flatMap { phase, path in
            Cause.allCases.flatMap { cause in
                [false, true].map { Cell(path: path, phase: phase, cause: cause, isAccessing: $0) }
            }
        }
    }

    @Test(
        arguments: cells([
            ("requested", []), ("receiving", [.accepted]), ("receiving", [.accepted, .segment]),
            ("received", [.accepted, .segment, .lastSegment]),
        ]))
    func receiver(_ cell: Cell) throws { try check(cell, IncomingState.self) }

    @Test(
        arguments: cells([
            ("queued", []), ("sending", [.accepted]), ("sending", [.accepted, .segment]),
            ("draining", [.accepted, .segment, .lastSegment]),
        ]))
    func sender(_ cell: Cell) throws { try check(cell, OutgoingState.self) }

    private func check<State: TransferState>(_ cell: Cell, _: State.Type) throws {
        var pools = StatePools(slotCount: 1, pageCount: 3)
        let reservation = try pools.reserve(tokens: 130, for: .request(7))
        let opened = pools.hold(reservation, for: .transfer)
        let hold = try #require(opened)
        var registry = TransferRegistry<State>()
        let key = TransferKey(receiver: "decode-0", request: 7, generation: reservation.generation)
        _ = try registry.open(key, peer: "peer", now: 0)
        for event in cell.path { #expect(registry.handle(event, key, bytes: 10, now: 1) == .done([])) }
        #expect(registry.state(key)?.rawValue == cell.phase)
        if cell.isAccessing { #expect(registry.beginAccess(key) == true) }

        let (actions, reason) = try apply(cell.cause, key, &registry)
        #expect(pools.release(reservation) == .quarantined(holds: 1))
        #expect(actions.first == .endCall(key, reason), "the other side learns of it")
        #expect(actions.contains(.endHold(key)) == !cell.isAccessing, "memory is free only on proof")
        #expect(registry.state(key)?.rawValue == (cell.isAccessing ? "stopping" : nil))
        #expect(registry.beginAccess(key) == false, "a late segment must not be written")
        #expect(registry.handle(.segment, key, now: 2) == .ignored)
        #expect(registry.stop(key, .cancelled, now: 2).isEmpty == true, "one end, one reason")
        if cell.isAccessing {
            #expect(pools.pages[.quarantined] == 3)
            #expect(registry.endAccess(key, now: 3) == [.endHold(key)])
        }
        let isProven = pools.end(hold)
        #expect(isProven && pools.pages[.free] == 3 && pools.slots[.free] == 1)
        #expect(registry.records.last?.end == reason && registry.counters.ends[reason.label] == 1)
    }

    private func apply<State: TransferState>(
        _ cause: Cause, _ key: TransferKey, _ registry: inout TransferRegistry<State>
    ) throws -> ([TransferAction], TransferEnd) {
        switch cause {
        case .cancelled: return (registry.stop(key, .cancelled, now: 2), .cancelled)
        case .peerDied: return (registry.peerLost("peer", why: "reset", now: 2), .peerFailed("reset"))
        case .peerFroze: return (registry.sweep(now: 4_000_000), .leaseExpired)
        case .segmentRefused:
            let refusal = TransferEnd.refused("layer 2 page 1 came twice")
            return (registry.stop(key, refusal, now: 2), refusal)
        case .requestForgotten: return (registry.sweep(now: 2) { _ in false }, .orphaned)
        case .restarted:
            let next = TransferKey(receiver: "decode-0", request: 7, generation: key.generation + 100)
            return (try registry.open(next, peer: "another", now: 2), .superseded)
        }
    }
}

/// Each test is named after a failure that others had.
@Suite struct TransferFailureTests {
    private let key = TransferKey(receiver: "decode-0", request: 7, generation: 3)

    private func receiving() throws -> IncomingTransfers {
        var transfers = IncomingTransfers()
        _ = try transfers.open(key, peer: "prefill-0", now: 0)
        _ = transfers.handle(.accepted, key, now: 1000)
        return transfers
    }

    @Test func deadDecodeInstanceDoesNotPinPrefillMemoryForMinutes() throws {
        var transfers = OutgoingTransfers()
        _ = try transfers.open(key, peer: "decode-0", now: 0)
        _ = transfers.handle(.accepted, key, now: 10)
        #expect(transfers.sweep(now: 2_999_999).isEmpty == true)
        #expect(transfers.nextExpiry == 3_000_010)
        #expect(transfers.sweep(now: 3_000_010) == [.endCall(key, .leaseExpired), .endHold(key)])
    }

    @Test func deadPrefillInstanceEndsOnlyItsOwnTransfers() throws {
        var transfers = try receiving()
        let other = TransferKey(receiver: "decode-0", request: 8, generation: 4)
        _ = try transfers.open(other, peer: "prefill-1", now: 0)
        let actions = transfers.peerLost("prefill-0", why: "closed", now: 5)
        #expect(actions == [.endCall(key, .peerFailed("closed")), .endHold(key)])
        #expect(transfers.state(other) == .requested)
    }

    @Test func lostCompletionNoteEndsAfterOneLease() throws {
        var transfers = try receiving()
        _ = transfers.handle(.lastSegment, key, now: 2000)
        #expect(transfers.state(key) == .received)
        #expect(transfers.sweep(now: 3_002_000) == [.endCall(key, .leaseExpired), .endHold(key)])
    }

    @Test func completionBeforeTheLastSegmentIsNotSuccess() throws {
        var transfers = try receiving()
        let reason = TransferEnd.illegal(event: .end, state: "receiving")
        #expect(transfers.handle(.end, key, now: 5) == .illegal([.endCall(key, reason), .endHold(key)]))
        #expect(transfers.counters.illegal == 1)
    }

    @Test func completionWhileAWriteIsInProgressIsNotSuccess() throws {
        var transfers = try receiving()
        _ = transfers.handle(.lastSegment, key, now: 5)
        #expect(transfers.beginAccess(key) == true)
        let reason = TransferEnd.illegal(event: .end, state: "received")
        #expect(transfers.handle(.end, key, now: 6) == .illegal([.endCall(key, reason)]))
        #expect(transfers.endAccess(key, now: 7) == [.endHold(key)])
    }

    @Test func staleGenerationIsIgnoredCountedAndDoesNotTouchTheReplacement() throws {
        var transfers = try receiving()
        let newer = TransferKey(receiver: "decode-0", request: 7, generation: 5)
        #expect(try transfers.open(newer, peer: "prefill-1", now: 10).first == .endCall(key, .superseded))
        #expect(transfers.handle(.segment, key, now: 11) == .ignored)
        #expect(transfers.stop(key, .cancelled, now: 11).isEmpty == true)
        #expect(transfers.beginAccess(key) == false)
        #expect(transfers.counters.stale == 2)
        #expect(throws: TransferRefusal.self) { try transfers.open(key, peer: "prefill-0", now: 12) }
        #expect(transfers.state(newer) == .requested)
        _ = transfers.stop(newer, .cancelled, now: 13)
        #expect(throws: TransferRefusal.self) { try transfers.open(key, peer: "prefill-0", now: 14) }
    }

    @Test func lateHeartbeatNeverShortensALease() {
        var leases = LeaseTable<Int>()
        leases.extend(1, now: 1000, by: 500)
        leases.extend(1, now: 10, by: 500)
        #expect(leases[1] == 1500)
        leases.extend(2, now: .max - 1, by: 500)
        #expect(leases[2] == .max)
    }

    @Test func sweepVisitsEveryLease() {
        var leases = LeaseTable<Int>()
        var generator = SeededRandom(seed: 3)
        let spans = (0..<200).map { _ in UInt64.random(in: 0..<1000, using: &generator) }
        for (key, span) in spans.enumerated() { leases.extend(key, now: 0, by: span) }
        for key in stride(from: 0, to: 200, by: 3) { leases.extend(key, now: 600, by: 100) }
        let expected = spans.indices.filter { max(spans[$0], $0 % 3 == 0 ? 700 : 0) <= 650 }
        #expect(leases.expired(now: 650) == expected, "they are in no order of time")
    }

    @Test func heartbeatKeepsWhatItsPeerHolds() throws {
        var transfers = try receiving()
        transfers.heartbeat(peer: "prefill-0", now: 2_000_000)
        transfers.heartbeat(peer: "prefill-1", now: 9_000_000)
        #expect(transfers.sweep(now: 4_999_999).isEmpty == true)
        #expect(transfers.sweep(now: 5_000_000).isEmpty == false)
    }

    @Test func nobodyKnowsWhyItDied() throws {
        var limits = TransferLimits()
        limits.records = 2
        var transfers = IncomingTransfers(limits: limits)
        for generation in 1...3 as ClosedRange<UInt64> {
            let key = TransferKey(receiver: "decode-0", request: generation, generation: generation)
            _ = try transfers.open(key, peer: "prefill-0", now: 0)
            _ = transfers.handle(.accepted, key, now: 2000)
            _ = transfers.handle(.segment, key, bytes: 4096, now: 3000)
            _ = transfers.stop(key, .peerFailed("connection reset"), now: 9000)
        }
        #expect(transfers.records.map(\.key.generation) == [2, 3], "bounded, the newest stay")
        #expect(
            transfers.records.last?.description
                == "transfer decode-0/3.3 with prefill-0: the peer failed: connection reset after 9 ms, 4096 bytes in "
                + "1 segments (requested 2 ms, receiving 7 ms, stopping 0 ms, failed 0 ms)")
        #expect(transfers.counters.ends == ["peer_failed": 3] && transfers.counters.byteCount == 3 * 4096)
        #expect(transfers.counters.transitions[.init(from: "receiving", to: "stopping")] == 3)
    }

    @Test func hangsWithoutAClue() throws {
        var transfers = try receiving()
        #expect(transfers.stuck(longerThan: 1_000_000, now: 900_000).isEmpty)
        #expect(
            transfers.stuck(longerThan: 1_000_000, now: 1_501_000)
                == ["transfer decode-0/7.3 with prefill-0: receiving for 1500 ms, 0 bytes in 0 segments, 0 accesses"])
        _ = transfers.beginAccess(key)
        _ = transfers.stop(key, .cancelled, now: 1_502_000)
        #expect(transfers.stuck(longerThan: 1000, now: 9_000_000).count == 1, "an access that never ends is seen")
    }

    @Test func openTransfersAreLimited() throws {
        var limits = TransferLimits()
        limits.open = 1
        var transfers = IncomingTransfers(limits: limits)
        _ = try transfers.open(key, peer: "prefill-0", now: 0)
        #expect(throws: TransferRefusal.self) {
            try transfers.open(TransferKey(receiver: "decode-0", request: 8, generation: 4), peer: "p", now: 0)
        }
    }

    @Test func everyTransitionIsInTheTableAndEndsSomewhere() {
        check(IncomingState.self)
        check(OutgoingState.self)
    }

    private func check<State: TransferState>(_: State.Type) {
        for state in State.allCases {
            #expect(State.transitions[state] != nil, "\(state) has a row")
            #expect((State.transitions[state]?.isEmpty == true) == state.isTerminal)
            #expect(state.isOver || state.next(.stop) == .stopping, "\(state) can be stopped")
        }
        #expect(State.stopping.next(.quiescent) == .failed)
    }

    /// Random events on both sides: no hold ends twice or never, none while an access runs.
    @Test(arguments: 1...50 as ClosedRange<UInt64>)
    func randomEventsEndEveryHoldOnceAndOnlyInQuiet(seed: UInt64) throws {
        var generator = SeededRandom(seed: seed)
        var transfers = IncomingTransfers()
        var accesses: [TransferKey: Int] = [:]
        var holds: Set<TransferKey> = []
        var now: UInt64 = 0
        func obey(_ actions: [TransferAction]) {
            for case .endHold(let key) in actions {
                #expect(holds.remove(key) != nil && (accesses[key] ?? 0) == 0, "seed \(seed): \(key)")
            }
        }
        for generation in 1...2000 as ClosedRange<UInt64> {
            now += UInt64.random(in: 0..<100_000, using: &generator)
            let request = UInt64.random(in: 0..<4, using: &generator)
            let key =
                holds.filter { $0.request.id == request }.max { $0.generation < $1.generation }
                ?? TransferKey(receiver: "d", request: request, generation: generation)
            switch Int.random(in: 0..<9, using: &generator) {
            case 0:
                let fresh = TransferKey(receiver: "d", request: request, generation: generation)
                obey(try transfers.open(fresh, peer: "p\(request % 2)", now: now))
                holds.insert(fresh)
            case 1...4:
                let event = TransferEvent.allCases.randomElement(using: &generator) ?? .segment
                switch transfers.handle(event, key, now: now) {
                case .done(let actions), .illegal(let actions): obey(actions)
                case .ignored: break
                }
            case 5: if transfers.beginAccess(key) { accesses[key, default: 0] += 1 }
            case 6:
                guard let busy = accesses.filter({ $0.value > 0 }).keys.min() else { break }
                accesses[busy, default: 0] -= 1
                obey(transfers.endAccess(busy, now: now))
            case 7: obey(transfers.stop(key, .cancelled, now: now))
            default: obey(transfers.sweep(now: now))
            }
        }
        for (key, count) in accesses.sorted(by: { $0.key < $1.key }) {
            for _ in 0..<count { accesses[key, default: 0] -= 1; obey(transfers.endAccess(key, now: now)) }
        }
        obey(transfers.sweep(now: .max))
        #expect(holds.isEmpty && transfers.openCount == 0, "seed \(seed): \(holds)")
    }
}
