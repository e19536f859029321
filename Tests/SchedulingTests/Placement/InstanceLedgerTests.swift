import Scheduling
import Serving
import Testing

@Suite struct InstanceLedgerTests {
    private enum State: CaseIterable { case unknown, serving, leaving, gone, broken }
    private enum Event: CaseIterable { case joinsOlder, joinsAgain, joinsNewer, forgotten, charged }

    private static func description(generation: UInt64 = 2) -> InstanceDescription {
        InstanceDescription(
            id: 0, name: "a", part: .both, capacity: Capacity(requests: 2, tokens: 640, requestTokens: 320),
            generation: generation)
    }

    private static func ledger(_ state: State = .serving) -> InstanceLedger {
        var ledger = InstanceLedger(breaker: CircuitBreaker.Limits())
        guard state != .unknown else { return ledger }
        _ = ledger.join(description())
        ledger.update(0) {
            $0.isLeaving = state == .leaving
            $0.isPresent = state != .gone
            $0.fault = state == .broken ? "no experts" : nil
        }
        return ledger
    }

    /// What a joining came to, and why nothing can be placed then.
    private static func apply(
        _ event: Event, _ ledger: inout InstanceLedger
    ) -> (joining: InstanceLedger.Joining?, outage: PlacementDeferral?) {
        var joining: InstanceLedger.Joining?
        switch event {
        case .joinsOlder: joining = ledger.join(description(generation: 1))
        case .joinsAgain: joining = ledger.join(description())
        case .joinsNewer: joining = ledger.join(description(generation: 3))
        case .forgotten: ledger.forget(0)
        case .charged: ledger.charge(0, 1, tokens: 64)
        }
        return (joining, ledger.outage)
    }

    @Test func everyStateAnswersEveryEvent() {
        let none = PlacementDeferral.noInstance(.decode)
        let broken = PlacementDeferral.brokenChain(.decode, "no experts")
        let table: [State: [(InstanceLedger.Joining?, PlacementDeferral?)]] = [
            .unknown: [(.known, nil), (.known, nil), (.known, nil), (nil, none), (nil, none)],
            .serving: [(.late, nil), (.known, nil), (.restarted, nil), (nil, none), (nil, nil)],
            .leaving: [(.late, none), (.known, nil), (.restarted, nil), (nil, none), (nil, none)],
            .gone: [(.late, none), (.known, nil), (.restarted, nil), (nil, none), (nil, none)],
            .broken: [(.late, broken), (.known, nil), (.restarted, nil), (nil, none), (nil, broken)],
        ]
        for state in State.allCases {
            let row = table[state] ?? []
            #expect(row.count == Event.allCases.count)
            for (event, wanted) in zip(Event.allCases, row) {
                var ledger = Self.ledger(state)
                let (joining, outage) = Self.apply(event, &ledger)
                #expect(joining == wanted.0 && outage == wanted.1, "\(event) while \(state)")
                let isCharged = event == .charged && state != .unknown
                #expect((ledger.loads.first?.requests ?? 0) == (isCharged ? 1 : 0), "\(event) while \(state)")
                let isRetired = state == .leaving && event == .joinsOlder
                #expect(ledger.retired == (isRetired ? [0] : []), "\(event) while \(state)")
            }
        }
    }

    private enum Want: CaseIterable { case little, much, more, tooLong }

    private static func answer(_ ledger: InstanceLedger, _ want: Want) -> PlacementDeferral? {
        let (tokens, whole) =
            switch want {
            case .little: (64, 64)
            case .much: (320, 320)
            case .more: (384, 320)
            case .tooLong: (64, 384)
            }
        do throws(PlacementDeferral) {
            let found = try ledger.candidates(.decode, tokens: tokens, whole: whole, now: 10)
            return found.map(\.id) == [0] ? nil : .behindOthers
        } catch { return error }
    }

    @Test func whoCouldTakeARequestFollowsFromWhatIsThere() {
        let full = PlacementDeferral.allFull(.decode)
        func changed(_ body: (inout InstanceLedger.Instance) -> Void) -> InstanceLedger {
            var ledger = Self.ledger()
            ledger.update(0, body)
            return ledger
        }
        func all(_ deferral: PlacementDeferral) -> [PlacementDeferral?] { Want.allCases.map { _ in deferral } }
        let rows: [(InstanceLedger, [PlacementDeferral?])] = [
            (Self.ledger(.unknown), all(.noInstance(.decode))),
            (Self.ledger(.leaving), all(.noInstance(.decode))),
            (Self.ledger(.gone), all(.noInstance(.decode))),
            (Self.ledger(.broken), all(.brokenChain(.decode, "no experts"))),
            (changed { for _ in 0..<3 { $0.breaker.failed(now: 0) } }, all(.resting(.decode))),
            (Self.ledger(), [nil, nil, nil, full]),
            (changed { ($0.placedRequests, $0.placedTokens) = (1, 320) }, [nil, nil, full, full]),
            (changed { ($0.placedRequests, $0.placedTokens) = (1, 640) }, all(full)),
            (changed { ($0.placedRequests, $0.placedTokens) = (2, 0) }, all(full)),
            (changed { $0.description.capacity.quarantinedRequests = 2 }, all(full)),
            (changed { $0.description.capacity.quarantinedTokens = 320 }, [nil, nil, full, full]),
        ]
        for (number, (ledger, wanted)) in rows.enumerated() {
            #expect(Want.allCases.map { Self.answer(ledger, $0) } == wanted, "row \(number)")
        }
    }
}
