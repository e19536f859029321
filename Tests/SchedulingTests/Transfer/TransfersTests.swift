import Scheduling
import Serving
import StatePools
import TestSupport
import Testing

/// Every event in every phase, on both sides, and what each does to the memory.
@Suite struct TransfersTests {
    enum Side: CaseIterable { case receiver, sender }
    enum EventName: String, CaseIterable {
        case accepted, segment, lastSegment, doubledSegment, end, stop, leaseOver, superseded
    }

    private let key = TransferKey(receiver: "decode-0", request: 7, generation: 3)
    private static let first = TransferSegment.latents(layer: 2, tokens: 0..<100)
    private static let rest: [(TransferSegment, Int)] = [
        (.latents(layer: 2, tokens: 100..<130), 30 * 24), (.state(layer: 0), 64), (.state(layer: 1), 64),
    ]

    private func memory() throws -> (StatePools, Reservation, Hold) {
        var pools = StatePools(slotCount: 1, pageCount: 3)
        let reservation = try pools.reserve(tokens: 130, for: .request(7))
        let hold = pools.hold(reservation, for: .transfer)
        return (pools, reservation, try #require(hold))
    }

    /// A transfer in `phase`, none of whose events was refused.
    private func transfers(_ side: Side, in phase: Transfers.Phase, _ hold: Hold) throws -> Transfers {
        var transfers = Transfers(isReceiver: side == .receiver)
        var actions = try transfers.open(
            key, peer: "peer", manifest: makeManifest(generation: 3), hold: side == .receiver ? hold : nil, now: 0)
        if phase != .waiting {
            actions += transfers.handle(.accepted(hold: side == .sender ? hold : nil), key, now: 1)
        }
        if phase == .moved {
            for (segment, bytes) in [(Self.first, 2400)] + Self.rest {
                #expect(transfers.handle(.segment(segment, byteCount: bytes), key, now: 1) == [.copy(key)])
            }
        }
        #expect(actions.isEmpty && transfers.phase(key) == phase)
        return transfers
    }

    private func apply(
        _ event: EventName, _ side: Side, _ hold: Hold, _ transfers: inout Transfers
    ) throws -> [TransferAction] {
        switch event {
        case .accepted: return transfers.handle(.accepted(hold: nil), key, now: 2)
        case .segment: return transfers.handle(.segment(Self.first, byteCount: 2400), key, now: 2)
        case .doubledSegment:
            _ = transfers.handle(.segment(Self.first, byteCount: 2400), key, now: 2)
            return transfers.handle(.segment(Self.first, byteCount: 2400), key, now: 2)
        case .lastSegment:
            var actions: [TransferAction] = []
            for (segment, bytes) in [(Self.first, 2400)] + Self.rest {
                actions = transfers.handle(.segment(segment, byteCount: bytes), key, now: 2)
            }
            return actions
        case .end: return transfers.handle(.end(segments: 4), key, now: 2)
        case .stop: return transfers.handle(.stop(.cancelled), key, now: 2)
        case .leaseOver: return transfers.sweep(now: 4_000_000)
        case .superseded:
            let next = TransferKey(receiver: "decode-0", request: 7, generation: 5)
            // In life the new one has memory of its own; here one hold stands for both.
            return try transfers.open(
                next, peer: "another", manifest: makeManifest(generation: 5), hold: side == .receiver ? hold : nil,
                now: 2)
        }
    }

    @Test(arguments: Side.allCases, Transfers.Phase.allCases)
    func everyPhaseAnswersEveryEvent(side: Side, phase: Transfers.Phase) throws {
        for event in EventName.allCases {
            let (_, _, hold) = try memory()
            var transfers = try transfers(side, in: phase, hold)
            let actions = try apply(event, side, hold, &transfers)
            let hasMemory = side == .receiver || phase != .waiting
            let isOver = transfers.phase(key) == nil
            switch (event, phase) {
            case (.accepted, .waiting): #expect(actions.isEmpty && transfers.phase(key) == .moving)
            case (.segment, .moving), (.lastSegment, .moving):
                #expect(actions == [.copy(key)], "\(event)")
                #expect(transfers.phase(key) == (event == .segment ? .moving : .moved))
            case (.end, .moved):
                #expect(actions == [side == .receiver ? .received(key, hold) : .endHold(hold), .over(key, .complete)])
            default:
                guard isOver, let end = transfers.records.last?.end else {
                    Issue.record("\(event) while \(phase) ended nothing")
                    continue
                }
                #expect(end != .complete, "\(event) while \(phase)")
                // What was refused before its last event has told of its end then.
                let isTold = !actions.isEmpty || event == .lastSegment || event == .doubledSegment
                #expect(isTold && !actions.contains(.copy(key)), "\(event) while \(phase)")
                if !actions.isEmpty {
                    #expect(
                        actions == (hasMemory ? [.endHold(hold)] : []) + [.over(key, end)], "\(event) while \(phase)")
                }
            }
        }
    }

    /// Whatever ends a transfer, its memory stays in quarantine until then and is free after.
    @Test(arguments: Side.allCases, Transfers.Phase.allCases)
    func memoryIsFreeWhenTheTransferIsOverAndNotBefore(side: Side, phase: Transfers.Phase) throws {
        for event in [EventName.stop, .leaseOver, .superseded, .accepted, .doubledSegment] {
            var (pools, reservation, hold) = try memory()
            guard side == .receiver || phase != .waiting else { continue }
            var transfers = try transfers(side, in: phase, hold)
            #expect(pools.release(reservation) == .quarantined(holds: 1))
            #expect(pools.pages[.quarantined] == 3)
            var all: [TransferAction] = []
            if event == .doubledSegment { all += transfers.handle(.segment(Self.first, byteCount: 2400), key, now: 2) }
            if transfers.phase(key) != nil {
                all +=
                    event == .doubledSegment
                    ? transfers.handle(.segment(Self.first, byteCount: 2400), key, now: 2)
                    : try apply(event, side, hold, &transfers)
            }
            guard transfers.phase(key) == nil else { continue }
            let ended = all.filter { $0 == .endHold(hold) }
            #expect(ended.count == 1, "\(event) while \(phase)")
            let isOpen = pools.end(hold)
            #expect(isOpen && pools.pages[.free] == 3 && pools.slots[.free] == 1)
            let late = transfers.handle(.segment(Self.first, byteCount: 2400), key, now: 3)
            #expect(late.isEmpty, "late, not to be written")
            let again = transfers.handle(.stop(.cancelled), key, now: 3)
            #expect(again.isEmpty, "one end, one reason")
        }
    }

    // MARK: What others got wrong

    private func receiving(_ transfers: inout Transfers, _ key: TransferKey, peer: String = "prefill-0") throws -> Hold
    {
        let (_, _, hold) = try memory()
        let opened = try transfers.open(
            key, peer: peer, manifest: makeManifest(generation: key.generation), hold: hold, now: 0)
        let accepted = transfers.handle(.accepted(hold: nil), key, now: 1000)
        #expect(opened.isEmpty && accepted.isEmpty)
        return hold
    }

    @Test func aDeadDecodeInstancePinsPrefillMemoryForOneLease() throws {
        var transfers = Transfers(isReceiver: false)
        let (_, _, hold) = try memory()
        _ = try transfers.open(key, peer: "decode-0", manifest: makeManifest(), hold: nil, now: 0)
        _ = transfers.handle(.accepted(hold: hold), key, now: 10)
        #expect(transfers.sweep(now: 3_000_009) == [])
        #expect(transfers.nextExpiry == 3_000_010)
        #expect(transfers.sweep(now: 3_000_010) == [.endHold(hold), .over(key, .leaseExpired)])
    }

    @Test func aLostEndMessageEndsAfterOneLease() throws {
        var transfers = Transfers(isReceiver: true)
        let hold = try receiving(&transfers, key)
        _ = try apply(.lastSegment, .receiver, hold, &transfers)
        #expect(transfers.phase(key) == .moved)
        #expect(transfers.sweep(now: 3_000_999) == [], "what came with an earlier time shortens no lease")
        #expect(transfers.sweep(now: 3_001_000) == [.endHold(hold), .over(key, .leaseExpired)])
    }

    @Test func anEndBeforeTheLastSegmentIsNoSuccessAndSaysWhatIsMissing() throws {
        var transfers = Transfers(isReceiver: true)
        let hold = try receiving(&transfers, key)
        _ = transfers.handle(.segment(.state(layer: 1), byteCount: 64), key, now: 4)
        let reason = TransferEnd.refused("it ended with parts missing: MLA layer 2: 130 tokens, linear layer 0")
        #expect(transfers.handle(.end(segments: 1), key, now: 5) == [.endHold(hold), .over(key, reason)])
    }

    @Test func anEndThatCountsOtherSegmentsIsNoSuccess() throws {
        var transfers = Transfers(isReceiver: true)
        let hold = try receiving(&transfers, key)
        _ = try apply(.lastSegment, .receiver, hold, &transfers)
        #expect(transfers.handle(.end(segments: 5), key, now: 5).first == .endHold(hold))
        #expect(transfers.records.last?.end.label == "refused")
    }

    @Test func anEarlierGenerationIsIgnoredCountedAndDoesNotTouchTheReplacement() throws {
        var transfers = Transfers(isReceiver: true)
        let hold = try receiving(&transfers, key)
        let newer = TransferKey(receiver: "decode-0", request: 7, generation: 5)
        let (_, _, other) = try memory()
        let opened = try transfers.open(
            newer, peer: "prefill-1", manifest: makeManifest(generation: 5), hold: other, now: 10)
        #expect(opened == [.endHold(hold), .over(key, .superseded)])
        #expect(transfers.handle(.segment(.state(layer: 0), byteCount: 64), key, now: 11) == [])
        #expect(transfers.handle(.stop(.cancelled), key, now: 11) == [])
        #expect(transfers.counters.stale == 1)
        #expect(throws: TransferRefusal.self) {
            try transfers.open(key, peer: "prefill-0", manifest: makeManifest(), hold: hold, now: 12)
        }
        #expect(transfers.phase(newer) == .waiting)
        _ = transfers.handle(.stop(.cancelled), newer, now: 13)
        #expect(throws: TransferRefusal.self) {
            try transfers.open(key, peer: "prefill-0", manifest: makeManifest(), hold: hold, now: 14)
        }
    }

    @Test func aHeartbeatKeepsWhatItsPeerHoldsAndNeverShortensALease() throws {
        var transfers = Transfers(isReceiver: true)
        _ = try receiving(&transfers, key)
        transfers.heartbeat(peer: "prefill-0", now: 2_000_000)
        transfers.heartbeat(peer: "prefill-0", now: 500)
        transfers.heartbeat(peer: "prefill-1", now: 9_000_000)
        #expect(transfers.nextExpiry == 5_000_000)
        #expect(transfers.sweep(now: 4_999_999) == [])
        #expect(transfers.sweep(now: 5_000_000) != [])
        var late = Transfers(isReceiver: true)
        _ = try late.open(key, peer: "p", manifest: makeManifest(), hold: memory().2, now: .max - 1)
        #expect(late.nextExpiry == .max)
    }

    @Test func theRecordOfATransferSaysWhyItEndedAndWhen() throws {
        var limits = TransferLimits()
        limits.records = 2
        var transfers = Transfers(isReceiver: true, limits: limits)
        for generation in 1...3 as ClosedRange<UInt64> {
            let key = TransferKey(receiver: "decode-0", request: generation, generation: generation)
            _ = try transfers.open(
                key, peer: "prefill-0", manifest: makeManifest(generation: generation), hold: memory().2, now: 0)
            _ = transfers.handle(.accepted(hold: nil), key, now: 2000)
            _ = transfers.handle(.segment(.state(layer: 0), byteCount: 64), key, now: 3000)
            _ = transfers.handle(.stop(.peerFailed("connection reset")), key, now: 9000)
        }
        #expect(transfers.records.map(\.key.generation) == [2, 3], "bounded, the newest stay")
        #expect(
            transfers.records.last?.description
                == "transfer decode-0/3.3 with prefill-0: the peer failed: connection reset after 9 ms, 64 bytes in "
                + "1 segments (waiting 2 ms, moving 7 ms)")
        #expect(transfers.counters.ends == ["peer_failed": 3] && transfers.counters.byteCount == 3 * 64)
    }

    @Test func openTransfersAreLimited() throws {
        var limits = TransferLimits()
        limits.open = 1
        var transfers = Transfers(isReceiver: true, limits: limits)
        _ = try receiving(&transfers, key)
        let other = TransferKey(receiver: "decode-0", request: 8, generation: 4)
        #expect(throws: TransferRefusal.self) {
            try transfers.open(other, peer: "p", manifest: makeManifest(), hold: memory().2, now: 0)
        }
    }

    /// Random events: every hold ends exactly once, and none of what is over is copied.
    @Test(arguments: 1...50 as ClosedRange<UInt64>)
    func everyHoldEndsOnce(seed: UInt64) throws {
        var generator = SeededRandom(seed: seed)
        var pools = StatePools(slotCount: 64, pageCount: 256)
        var transfers = Transfers(isReceiver: true)
        var open: [TransferKey: Hold] = [:]
        var now: UInt64 = 0
        func obey(_ actions: [TransferAction]) {
            for action in actions {
                switch action {
                case .copy(let key): #expect(open[key] != nil, "seed \(seed): \(key) is over")
                case .endHold(let hold), .received(_, let hold):
                    let isOpen = pools.end(hold)
                    #expect(isOpen, "seed \(seed): a hold ended twice")
                case .over(let key, _):
                    let known = open.removeValue(forKey: key)
                    #expect(known != nil, "seed \(seed): \(key)")
                }
            }
        }
        for generation in 1...2000 as ClosedRange<UInt64> {
            now += UInt64.random(in: 0..<100_000, using: &generator)
            let request = UInt64.random(in: 0..<4, using: &generator)
            let known = open.keys.filter { $0.request.id == request }.max()
            switch Int.random(in: 0..<8, using: &generator) {
            case 0:
                let fresh = TransferKey(receiver: "d", request: request, generation: generation)
                let reservation = try pools.reserve(tokens: 130, for: .request(generation))
                let held = pools.hold(reservation, for: .transfer)
                let hold = try #require(held)
                _ = pools.release(reservation)
                obey(
                    try transfers.open(
                        fresh, peer: "p\(request % 2)", manifest: makeManifest(generation: generation), hold: hold,
                        now: now))
                open[fresh] = hold
            case 1: if let known { obey(transfers.handle(.accepted(hold: nil), known, now: now)) }
            case 2...4:
                let segment = ([(Self.first, 2400)] + Self.rest)[Int.random(in: 0..<4, using: &generator)]
                if let known { obey(transfers.handle(.segment(segment.0, byteCount: segment.1), known, now: now)) }
            case 5: if let known { obey(transfers.handle(.end(segments: 4), known, now: now)) }
            case 6: if let known { obey(transfers.handle(.stop(.cancelled), known, now: now)) }
            default: obey(transfers.sweep(now: now))
            }
        }
        obey(transfers.sweep(now: .max))
        #expect(open.isEmpty && transfers.openCount == 0 && pools.slots[.free] == 64, "seed \(seed)")
    }
}
