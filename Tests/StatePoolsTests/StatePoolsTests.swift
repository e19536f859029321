import StatePools
import Testing

@Suite struct StatePoolsTests {
    @Test func seededOperationsNeverOverlapNorLeak() throws {
        let seed: UInt64 = 0x5EED
        var generator = SplitMix(state: seed)
        var pools = StatePools(slotCount: 9, pageCount: 40, pageTokens: 64)
        var held: [Reservation] = []
        for step in 0..<100_000 {
            if Bool.random(using: &generator) || held.isEmpty {
                let tokens = Int.random(in: 1...900, using: &generator)
                if let reservation = try? pools.reserve(tokens: tokens) { held.append(reservation) }
            } else {
                let victim = held.remove(at: Int.random(in: 0..<held.count, using: &generator))
                let first = pools.release(victim)
                let second = pools.release(victim)
                try #require(first && !second, "seed \(seed) step \(step): a second release is refused")
            }
            let slots = held.map(\.slot)
            let pages = held.flatMap(\.pages)
            try #require(Set(slots).count == slots.count, "seed \(seed) step \(step): slot given out twice")
            try #require(Set(pages).count == pages.count, "seed \(seed) step \(step): page given out twice")
            try #require(pools.slotsInUse == slots.count && pools.pagesInUse == pages.count)
        }
    }

    @Test func refusalsNameTheLimitAndChangeNothing() {
        var pools = StatePools(slotCount: 1, pageCount: 2, pageTokens: 64)
        #expect(throws: ReservationRefusal.neverFits(needed: 3, pages: 2)) { try pools.reserve(tokens: 129) }
        let first = try? pools.reserve(tokens: 64)
        #expect(first?.pages.count == 1)
        #expect(throws: ReservationRefusal.noPages(needed: 2, free: 1)) { try pools.reserve(tokens: 65) }
        #expect(throws: ReservationRefusal.noSlot(slots: 1)) { try pools.reserve(tokens: 1) }
        #expect(pools.slotsInUse == 1 && pools.pagesInUse == 1)
    }
}

struct SplitMix: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}
