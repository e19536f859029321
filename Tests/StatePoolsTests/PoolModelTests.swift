import StatePools
import TestSupport
import Testing

/// The pools against a model that is as simple as it can be: a list of who holds what, counted afresh each time.
@Suite struct PoolModelTests {
    @Test(arguments: [0x5EED, 0xF00D] as [UInt64])
    func aMillionSeededOperationsKeepTheInvariants(seed: UInt64) throws {
        var run = PoolModelRun(seed: seed, slots: 7, pages: 24)
        for step in 0..<500_000 {
            let operation = run.perform()
            if let broken = run.brokenInvariant() {
                Issue.record("seed \(seed) step \(step) after \(operation): \(broken)")
                return
            }
        }
        let left = run.finish()
        #expect(left == nil, "seed \(seed): \(left ?? "")")
    }
}

private struct PoolModelRun {
    private struct Holder {
        var reservation: Reservation
        var written: Int
        var holds: [Hold] = []
        var isReleased = false
        var isKept = false
        var isWritten = false

        var isTransferring: Bool { holds.contains { $0.purpose == .transfer } }
    }

    private var generator: SeededRandom
    private var pools: StatePools
    private var holders: [Holder] = []
    private var gone: [Reservation] = []
    private var ended: [Hold] = []
    private var staleReleases = 0
    private var staleHolds = 0
    private var fault: String?

    init(seed: UInt64, slots: Int, pages: Int) {
        generator = SeededRandom(seed: seed)
        pools = StatePools(slotCount: slots, pageCount: pages)
    }

    mutating func perform() -> String {
        switch Int.random(in: 0..<17, using: &generator) {
        case 0...3: reserve()
        case 4: grow()
        case 5: trim()
        case 6...7: write()
        case 8...9: openHold()
        case 10...11: endHold()
        case 12...13: release()
        case 14: releaseAgain()
        case 15: keep()
        default: endAgain()
        }
    }

    private mutating func reserve() -> String {
        let tokens = Int.random(in: 0...400, using: &generator)
        var shared: [PageHandle] = []
        if Bool.random(using: &generator),
            let source = holders.filter({ !$0.isReleased }).randomElement(using: &generator)
        {
            let count = Int.random(in: 0...source.written, using: &generator)
            shared = (0..<count).compactMap { pools.handle(page: $0, of: source.reservation) }
        }
        let fresh = max(0, pools.pages(forTokens: tokens) - shared.count)
        let fits = fresh <= freePages && freeSlots > 0
        do {
            let reservation = try pools.reserve(tokens: tokens, for: .request(1), sharing: shared)
            if !fits { fault = "reserved what was not there" }
            let taken = Set(holders.flatMap(\.reservation.pages))
            let overlap = reservation.pages.dropFirst(shared.count).contains { taken.contains($0) || $0 < 1 }
            let clash = reservation.slot < 1 || holders.contains { $0.reservation.slot == reservation.slot }
            if overlap || clash { fault = "handed out something in use: \(reservation)" }
            holders.append(Holder(reservation: reservation, written: shared.count))
        } catch {
            if fits { fault = "refused what fits: \(error)" }
        }
        return "reserve \(tokens)"
    }

    private mutating func grow() -> String {
        guard let index = liveIndex() else { return "nothing" }
        let tokens = Int.random(in: 0...600, using: &generator)
        let before = holders[index].reservation.pages
        let missing = max(0, pools.pages(forTokens: tokens) - before.count)
        let fits = missing <= freePages
        let taken = Set(holders.flatMap(\.reservation.pages))
        do {
            try pools.grow(&holders[index].reservation, tokens: tokens)
            let after = holders[index].reservation.pages
            let fresh = after.dropFirst(before.count)
            if !fits || holders[index].isKept || !after.starts(with: before) || fresh.count != missing
                || fresh.contains(where: taken.contains)
            {
                fault = "grew from \(before) to \(after)"
            }
        } catch {
            if fits && !holders[index].isKept { fault = "refused growth that fits: \(error)" }
        }
        return "grow"
    }

    private mutating func trim() -> String {
        guard let index = liveIndex() else { return "nothing" }
        let tokens = Int.random(in: 0...400, using: &generator)
        let count = holders[index].reservation.pages.count
        let excess = count - min(count, max(holders[index].written, pools.pages(forTokens: tokens)))
        let expected = holders[index].isTransferring || holders[index].isKept ? 0 : excess
        if pools.trim(&holders[index].reservation, keeping: tokens) != expected {
            fault = "trim did not give back \(expected)"
        }
        return "trim"
    }

    private mutating func write() -> String {
        guard let index = liveIndex(), !holders[index].isKept else { return "nothing" }
        let holder = holders[index]
        let pages = Int.random(in: 0...holder.reservation.pages.count, using: &generator)
        pools.markWritten(holder.reservation, tokens: pages * 64)
        holders[index].written = max(holder.written, pages)
        holders[index].isWritten = true
        return "write"
    }

    private mutating func keep() -> String {
        guard let index = liveIndex() else { return "nothing" }
        let holder = holders[index]
        let pages = Int.random(in: 0...holder.reservation.pages.count, using: &generator)
        let may =
            !holder.isKept && holder.isWritten && pages <= holder.written
            && holder.holds.allSatisfy { $0.purpose == .transfer }
        if pools.keep(&holders[index].reservation, tokens: pages * 64) != may { fault = "kept, or not, \(holder)" }
        guard may else { return "keep nothing" }
        holders[index].isKept = true
        holders[index].written = min(holder.written, holders[index].reservation.pages.count)
        return "keep"
    }

    private mutating func openHold() -> String {
        guard let index = holders.indices.randomElement(using: &generator) else { return "nothing" }
        let hold = pools.hold(holders[index].reservation, for: Bool.random(using: &generator) ? .step : .transfer)
        if (hold == nil) != holders[index].isReleased {
            fault = "a hold on a released reservation, or none on a live one"
        }
        if let hold { holders[index].holds.append(hold) }
        return "hold"
    }

    private mutating func endHold() -> String {
        let candidates = holders.indices.filter { !holders[$0].holds.isEmpty }
        guard let index = candidates.randomElement(using: &generator) else { return "nothing" }
        let place = holders[index].holds.indices.randomElement(using: &generator) ?? 0
        let hold = holders[index].holds.remove(at: place)
        if !pools.end(hold) { fault = "an open hold did not end" }
        ended.append(hold)
        if ended.count > 50 { ended.removeFirst() }
        if holders[index].isReleased && holders[index].holds.isEmpty { forget(index) }
        return "end"
    }

    private mutating func release() -> String {
        guard let index = liveIndex() else { return "nothing" }
        let holds = holders[index].holds.count
        let outcome = pools.release(holders[index].reservation)
        if outcome != (holds == 0 ? .freed : .quarantined(holds: holds)) { fault = "release said \(outcome)" }
        holders[index].isReleased = true
        if holds == 0 { forget(index) }
        return "release"
    }

    private mutating func releaseAgain() -> String {
        let quarantined = holders.filter(\.isReleased).map(\.reservation)
        guard let old = (gone + quarantined).randomElement(using: &generator) else { return "nothing" }
        staleReleases += 1
        if pools.release(old) != .stale { fault = "a second release was obeyed" }
        return "release again"
    }

    private mutating func endAgain() -> String {
        guard let hold = ended.randomElement(using: &generator) else { return "nothing" }
        staleHolds += 1
        if pools.end(hold) { fault = "a hold ended twice" }
        return "end again"
    }

    private mutating func forget(_ index: Int) {
        gone.append(holders.remove(at: index).reservation)
        if gone.count > 50 { gone.removeFirst() }
    }

    private mutating func liveIndex() -> Int? {
        holders.indices.filter { !holders[$0].isReleased }.randomElement(using: &generator)
    }

    private var freeSlots: Int { pools.slotCount - holders.count }
    private var freePages: Int { pools.pageCount - Set(holders.flatMap(\.reservation.pages)).count }

    func brokenInvariant() -> String? {
        if let fault { return fault }
        if pools.staleReleases != staleReleases || pools.staleHolds != staleHolds { return "stale calls miscounted" }
        var pages = Array(repeating: Seen(), count: pools.pageCount + 1)
        var slots = Array(repeating: Seen(), count: pools.slotCount + 1)
        for holder in holders {
            for (index, page) in holder.reservation.pages.enumerated() {
                pages[page].add(holder.isReleased, holder.isKept, holder.isTransferring, index < holder.written)
            }
            slots[holder.reservation.slot].add(
                holder.isReleased, holder.isKept, holder.isTransferring, holder.isWritten)
        }
        return difference(pages, pools.pages, "page", { pools.state(page: $0) })
            ?? difference(slots, pools.slots, "slot", { pools.state(slot: $0) })
    }

    private func difference(_ seen: [Seen], _ counts: PoolCounts, _ kind: String, _ state: (Int) -> UnitState?)
        -> String?
    {
        var tally = [0, 0, 0, 0, 0, 0]
        for index in seen.indices.dropFirst() {
            guard state(index) == seen[index].state else {
                return
                    "\(kind) \(index) is \(state(index).map { "\($0)" } ?? "nothing"), the model says \(seen[index].state)"
            }
            tally[seen[index].state.rawValue] += 1
        }
        guard UnitState.allCases.allSatisfy({ counts[$0] == tally[$0.rawValue] }) else { return "\(kind)s: \(counts)" }
        return counts.total == seen.count - 1 ? nil : "\(kind) counts do not add up: \(counts)"
    }

    /// Ends everything that is open; then all must be free.
    mutating func finish() -> String? {
        for holder in holders {
            for hold in holder.holds where !pools.end(hold) { return "an open hold did not end" }
            if !holder.isReleased, pools.release(holder.reservation) != .freed { return "not freed at the end" }
        }
        return pools.pagesInUse == 0 && pools.slotsInUse == 0 ? nil : "leaked: \(pools.pages), \(pools.slots)"
    }

    private struct Seen {
        var owners = 0
        var guests = 0
        var keepers = 0
        var isTransferring = false
        var isWritten = false

        mutating func add(_ isReleased: Bool, _ isKept: Bool, _ transfers: Bool, _ written: Bool) {
            if isReleased { guests += 1 } else if isKept { keepers += 1 } else { owners += 1 }
            isTransferring = isTransferring || transfers
            isWritten = isWritten || written
        }

        var state: UnitState {
            if owners == 0 { return guests > 0 ? .quarantined : keepers > 0 ? .cached : .free }
            return isTransferring ? .leased : isWritten ? .used : .reserved
        }
    }
}
