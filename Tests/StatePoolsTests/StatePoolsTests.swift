import StatePools
import Testing

@Suite struct StatePoolsTests {
    private func opened(_ hold: Hold?) throws -> Hold { try #require(hold) }

    @Test func refusalsNameTheLimitAndChangeNothing() {
        var pools = StatePools(slotCount: 1, pageCount: 2)
        #expect(throws: ReservationRefusal.neverFits(needed: 3, pages: 2)) {
            try pools.reserve(tokens: 129, for: .request(1))
        }
        let first = try? pools.reserve(tokens: 64, for: .request(1))
        #expect(first?.pages.count == 1)
        #expect(throws: ReservationRefusal.noPages(needed: 2, free: 1)) {
            try pools.reserve(tokens: 65, for: .request(2))
        }
        #expect(throws: ReservationRefusal.noSlot(slots: 1)) { try pools.reserve(tokens: 1, for: .request(2)) }
        #expect(throws: ReservationRefusal.self) { try pools.reserve(tokens: .max, for: .request(2)) }
        #expect(pools.slotsInUse == 1 && pools.pagesInUse == 1)
    }

    @Test func paddingIsNeverHandedOut() throws {
        var pools = StatePools(slotCount: 3, pageCount: 5)
        var slots: [Int] = []
        var pages: [Int] = []
        for (id, tokens) in [(1, 64), (2, 128), (3, 128)] {
            let reservation = try pools.reserve(tokens: tokens, for: .request(UInt64(id)))
            slots.append(reservation.slot)
            pages += reservation.pages
        }
        #expect(slots.sorted() == [1, 2, 3] && pages.sorted() == [1, 2, 3, 4, 5])
        #expect(pools.state(slot: 0) == nil && pools.state(page: 0) == nil && pools.state(page: 6) == nil)
    }

    @Test func pagesGrowWithinTheReservationAndPromisesCanBeTakenBack() throws {
        var pools = StatePools(slotCount: 2, pageCount: 6)
        var reservation = try pools.reserve(tokens: 256, for: .request(1))
        pools.markWritten(reservation, tokens: 70)
        #expect(pools.trim(&reservation, keeping: 256) == 0)
        #expect(pools.pages[.reserved] == 2 && pools.pages[.used] == 2 && pools.slots[.used] == 1)
        #expect(pools.trim(&reservation, keeping: 0) == 2)
        #expect(reservation.pages.count == 2 && pools.pages[.free] == 4)
        try pools.grow(&reservation, tokens: 384)
        #expect(reservation.pages.count == 6 && pools.pages[.free] == 0)
        #expect(throws: ReservationRefusal.neverFits(needed: 7, pages: 6)) {
            try pools.grow(&reservation, tokens: 385)
        }
        #expect(pools.release(reservation) == .freed)
        #expect(throws: ReservationRefusal.stale) { try pools.grow(&reservation, tokens: 64) }
    }

    @Test func doubleReleaseIsReportedAndNeverObeyed() throws {
        var pools = StatePools(slotCount: 1, pageCount: 2)
        let first = try pools.reserve(tokens: 128, for: .request(1))
        #expect(pools.release(first) == .freed)
        let second = try pools.reserve(tokens: 128, for: .request(2))
        #expect(second.slot == first.slot && second.pages == first.pages)
        #expect(pools.release(first) == .stale && pools.staleReleases == 1)
        #expect(pools.isLive(second) && !pools.isLive(first))
        #expect(pools.slotsInUse == 1 && pools.pagesInUse == 2)
    }

    /// An abort in mid-transfer must not give pages to another request while the peer can still write into them.
    @Test func abortInMidTransferDoesNotGiveThePagesToAnotherRequest() throws {
        var pools = StatePools(slotCount: 2, pageCount: 2)
        let victim = try pools.reserve(tokens: 128, for: .request(1))
        let hold = try opened(pools.hold(victim, for: .transfer))
        #expect(pools.pages[.leased] == 2 && pools.slots[.leased] == 1)
        #expect(pools.release(victim) == .quarantined(holds: 1))
        #expect(pools.pages[.quarantined] == 2)
        #expect(!pools.isLive(victim), "a late write must be able to see that it comes too late")
        #expect(throws: ReservationRefusal.noPages(needed: 1, free: 0)) {
            try pools.reserve(tokens: 1, for: .request(2))
        }
        #expect(pools.release(victim) == .stale)
        #expect(pools.end(hold) && pools.pages[.free] == 2 && pools.slots[.free] == 2)
    }

    /// The end of one of two holds is no proof that the other is over.
    @Test func releaseIsNoProofOfQuiescenceWhileAnotherHoldIsOpen() throws {
        var pools = StatePools(slotCount: 1, pageCount: 1)
        let reservation = try pools.reserve(tokens: 1, for: .request(1))
        let step = try opened(pools.hold(reservation, for: .step))
        let transfer = try opened(pools.hold(reservation, for: .transfer))
        #expect(pools.release(reservation) == .quarantined(holds: 2))
        #expect(pools.end(transfer) && pools.pages[.quarantined] == 1)
        #expect(!pools.end(transfer) && pools.staleHolds == 1, "a hold ends once")
        #expect(pools.hold(reservation, for: .transfer) == nil)
        #expect(pools.end(step) && pools.pages[.free] == 1)
    }

    /// A late end of an old transfer must not free or unlock what a later request now holds there.
    @Test func lateNoteOfAnEarlierGenerationIsIgnored() throws {
        var pools = StatePools(slotCount: 1, pageCount: 1)
        let old = try pools.reserve(tokens: 1, for: .request(1))
        let lost = try opened(pools.hold(old, for: .transfer))
        _ = pools.release(old)
        #expect(pools.end(lost) == true)
        let new = try pools.reserve(tokens: 1, for: .request(2))
        let hold = try opened(pools.hold(new, for: .transfer))
        #expect(pools.end(lost) == false)
        #expect(pools.pages[.leased] == 1 && pools.isLive(new))
        #expect(pools.end(hold) == true)
    }

    @Test func prefixPagesAreSharedByCountAndOutliveTheirFirstOwner() throws {
        var pools = StatePools(slotCount: 3, pageCount: 4, dpRank: 7)
        let request = try pools.reserve(tokens: 128, for: .request(1))
        let early = try #require(pools.handle(page: 0, of: request))
        #expect(throws: ReservationRefusal.stale) {
            try pools.reserve(tokens: 64, for: .prefix(9), sharing: [early])
        }
        pools.markWritten(request, tokens: 128)
        let prefix = try pools.reserve(tokens: 64, for: .prefix(9), sharing: [early])
        #expect(prefix.pages == [request.pages[0]] && prefix.key == StateKey(dpRank: 7, owner: .prefix(9)))
        #expect(pools.release(request) == .freed && pools.pagesInUse == 1)
        let second = try pools.reserve(tokens: 100, for: .request(2), sharing: [early])
        #expect(second.pages.first == request.pages[0] && second.slot != prefix.slot)
        #expect(pools.release(prefix) == .freed && pools.pages[.used] == 1)
        #expect(pools.release(second) == .freed && pools.pagesInUse == 0)
        #expect(throws: ReservationRefusal.stale) {
            try pools.reserve(tokens: 64, for: .request(3), sharing: [early])
        }
    }
}
