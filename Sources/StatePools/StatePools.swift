/// Bookkeeping for the two kinds of memory a request owns: token-indexed KV pages for the MLA layers and one
/// request-indexed recurrent slot for the linear layers. It hands out indices; the bytes live elsewhere.
///
/// Slot and pages are acquired together and released together. Pages can be added later. Memory that a step or a
/// transfer can still reach is held: releasing it puts it into quarantine, and the end of the last hold frees it.
///
/// The memory behind the pools needs `slotCount + 1` slots and `pageCount + 1` pages: number 0 is padding.
public struct StatePools: Sendable {
    private struct Record: Sendable {
        let generation: UInt64
        let key: StateKey
        var pages: [Int]
        var writtenPages: Int
        var holds: [Hold] = []
        var isReleased = false
        var isKept = false

        var transfers: Int { holds.count { $0.purpose == .transfer } }

        /// False when the hold is not open here.
        mutating func close(_ hold: Hold) -> Bool {
            guard generation == hold.generation, let index = holds.firstIndex(of: hold) else { return false }
            holds.remove(at: index)
            return true
        }
    }

    /// Tokens in one KV page.
    public let pageTokens: Int
    /// Data-parallel rank these pools belong to.
    public let dpRank: Int
    /// Releases of something that was not there any more.
    public private(set) var staleReleases = 0
    /// Ends of holds that were not open.
    public private(set) var staleHolds = 0
    private var slotPool: UnitPool
    private var pagePool: UnitPool
    private var records: [Record?]
    private var nextStamp: UInt64 = 1

    /// Pools of `slotCount` recurrent slots and `pageCount` pages of `pageTokens` tokens each, padding not counted.
    public init(slotCount: Int, pageCount: Int, pageTokens: Int = 64, dpRank: Int = 0) {
        self.pageTokens = max(1, pageTokens)
        self.dpRank = dpRank
        slotPool = UnitPool(count: max(0, slotCount))
        pagePool = UnitPool(count: max(0, pageCount))
        records = Array(repeating: nil, count: slotPool.count + 1)
    }

    /// Recurrent slots in the pool, without padding.
    public var slotCount: Int { slotPool.count }
    /// KV pages in the pool, without padding.
    public var pageCount: Int { pagePool.count }
    /// Slots by state.
    public var slots: PoolCounts { slotPool.counts }
    /// Pages by state.
    public var pages: PoolCounts { pagePool.counts }
    /// Recurrent slots that are neither free nor cached.
    public var slotsInUse: Int { slotCount - slotPool.freeCount - slots[.cached] }
    /// KV pages that are neither free nor cached.
    public var pagesInUse: Int { pageCount - pagePool.freeCount - pages[.cached] }

    /// Pages that `tokens` tokens take.
    public func pages(forTokens tokens: Int) -> Int {
        max(0, tokens) / pageTokens + (max(0, tokens) % pageTokens == 0 ? 0 : 1)
    }

    /// Reserves one slot and the pages for `tokens` tokens, or says why not and changes nothing. The first pages may
    /// be shared with other reservations: whole pages that were written and will not be written again.
    ///
    /// - Throws: `ReservationRefusal` that says what is missing.
    public mutating func reserve(
        tokens: Int, for owner: StateKey.Owner, sharing: [PageHandle] = []
    ) throws(ReservationRefusal) -> Reservation {
        let needed = pages(forTokens: tokens)
        guard needed <= pageCount else { throw .neverFits(needed: needed, pages: pageCount) }
        guard sharing.allSatisfy(canShare) else { throw .stale }
        let fresh = max(0, needed - sharing.count)
        guard fresh <= pagePool.freeCount else { throw .noPages(needed: fresh, free: pagePool.freeCount) }
        let generation = stamp()
        guard let slot = slotPool.take(generation: generation) else { throw .noSlot(slots: slotCount) }
        for page in sharing { pagePool.change(page.index) { $0.owners += 1 } }
        let key = StateKey(dpRank: dpRank, owner: owner)
        let pages = sharing.map(\.index) + takePages(fresh)
        assert(pages.count >= needed, "a reservation has every page that it asked for")
        records[slot] = Record(generation: generation, key: key, pages: pages, writtenPages: sharing.count)
        return Reservation(
            slot: slot, pages: pages, sharedPages: sharing.count, generation: generation, key: key)
    }

    /// Adds pages until the reservation holds `tokens` tokens, or says why not and changes nothing.
    ///
    /// - Throws: `ReservationRefusal` that says what is missing.
    public mutating func grow(_ reservation: inout Reservation, tokens: Int) throws(ReservationRefusal) {
        guard var record = live(reservation), !record.isKept else { throw .stale }
        let needed = pages(forTokens: tokens)
        guard needed <= pageCount else { throw .neverFits(needed: needed, pages: pageCount) }
        let missing = max(0, needed - record.pages.count)
        guard missing <= pagePool.freeCount else { throw .noPages(needed: missing, free: pagePool.freeCount) }
        let fresh = takePages(missing)
        let transfers = UInt32(record.transfers)
        for page in fresh where transfers > 0 { pagePool.change(page) { $0.transfers += transfers } }
        record.pages += fresh
        assert(record.pages.count >= needed, "a reservation that grew has every page that it asked for")
        records[reservation.slot] = record
        reservation.pages = record.pages
    }

    /// Gives back the pages beyond `tokens` tokens that were promised and never written; returns how many. A transfer
    /// keeps what it was promised.
    public mutating func trim(_ reservation: inout Reservation, keeping tokens: Int) -> Int {
        guard var record = live(reservation), record.transfers == 0, !record.isKept else { return 0 }
        let kept = min(record.pages.count, max(record.writtenPages, pages(forTokens: tokens)))
        let excess = record.pages[kept...]
        for page in excess.reversed() { pagePool.change(page) { $0.owners -= 1 } }
        record.pages.removeLast(excess.count)
        assert(record.writtenPages <= record.pages.count, "a page that was written is not given back")
        records[reservation.slot] = record
        reservation.pages = record.pages
        return excess.count
    }

    /// Notes that the slot and the first `tokens` tokens' pages are, or are about to be, written.
    public mutating func markWritten(_ reservation: Reservation, tokens: Int) {
        guard var record = live(reservation) else { return }
        precondition(!record.isKept, "what is kept is not written")
        let written = min(record.pages.count, pages(forTokens: tokens))
        guard written > record.writtenPages || !slotPool[reservation.slot].isWritten else { return }
        slotPool.change(reservation.slot) { $0.isWritten = true }
        guard written > record.writtenPages else { return }
        for page in record.pages[record.writtenPages..<written] { pagePool.change(page) { $0.isWritten = true } }
        record.writtenPages = written
        assert(written <= record.pages.count, "only own pages are written")
        records[reservation.slot] = record
    }

    /// Gives a reservation back. What a hold can still reach goes into quarantine. A second release is counted, not obeyed.
    public mutating func release(_ reservation: Reservation) -> ReleaseOutcome {
        guard var record = live(reservation) else {
            staleReleases += 1
            return .stale
        }
        guard !record.holds.isEmpty else {
            drop(record, slot: reservation.slot) { Self.leave(&$0, record.isKept) }
            return .freed
        }
        record.isReleased = true
        records[reservation.slot] = record
        forEachUnit(of: record, slot: reservation.slot) { unit in
            Self.leave(&unit, record.isKept)
            unit.guests += 1
        }
        assert(slotPool[reservation.slot].state == .quarantined, "what is held and released is in quarantine")
        return .quarantined(holds: record.holds.count)
    }

    /// Makes what a request owned a prefix that is kept: nothing is written there any more, its first `tokens` tokens may
    /// be shared, and pages beyond them are given back. Transfers may go on reading. False when it is gone, or a step may
    /// still write there.
    public mutating func keep(_ reservation: inout Reservation, tokens: Int) -> Bool {
        guard var record = live(reservation), !record.isKept, record.transfers == record.holds.count else {
            return false
        }
        let kept = pages(forTokens: tokens)
        guard kept <= record.writtenPages, slotPool[reservation.slot].isWritten else { return false }
        if record.transfers == 0 {
            for page in record.pages[kept...].reversed() { pagePool.change(page) { $0.owners -= 1 } }
            record.pages.removeLast(record.pages.count - kept)
            record.writtenPages = kept
        }
        record.isKept = true
        records[reservation.slot] = record
        reservation.pages = record.pages
        forEachUnit(of: record, slot: reservation.slot) { unit in
            unit.owners -= 1
            unit.keepers += 1
        }
        assert(slotPool[reservation.slot].owners == 0, "what is kept belongs to no request")
        return true
    }

    private static func leave(_ unit: inout UnitPool.Unit, _ isKept: Bool) {
        if isKept { unit.keepers -= 1 } else { unit.owners -= 1 }
    }

    /// Opens a hold, or nil when the reservation is gone: then nobody may read or write there.
    public mutating func hold(_ reservation: Reservation, for purpose: Hold.Purpose) -> Hold? {
        guard isLive(reservation) else { return nil }
        let hold = Hold(
            purpose: purpose, dpRank: dpRank, slot: reservation.slot, generation: reservation.generation,
            number: stamp())
        records[reservation.slot]?.holds.append(hold)
        if purpose == .transfer, let record = records[reservation.slot] {
            forEachUnit(of: record, slot: reservation.slot) { $0.transfers += 1 }
        }
        return hold
    }

    /// Ends a hold: the proof that nothing reads or writes there through it any more. Returns false, and counts it,
    /// when the hold was not open.
    public mutating func end(_ hold: Hold) -> Bool {
        guard hold.dpRank == dpRank, records.indices.contains(hold.slot),
            records[hold.slot]?.close(hold) == true
        else {
            staleHolds += 1
            return false
        }
        if hold.purpose == .transfer, let record = records[hold.slot] {
            forEachUnit(of: record, slot: hold.slot) { $0.transfers -= 1 }
        }
        if let record = records[hold.slot], record.isReleased, record.holds.isEmpty {
            drop(record, slot: hold.slot) { $0.guests -= 1 }
        }
        return true
    }

    /// True while the reservation belongs to its owner. Whoever writes received bytes asks this first.
    public func isLive(_ reservation: Reservation) -> Bool {
        records.indices.contains(reservation.slot) && records[reservation.slot]?.generation == reservation.generation
            && records[reservation.slot]?.isReleased == false
    }

    /// Handles for sharing the pages of a reservation that its first `tokens` tokens fill.
    public func handles(filledBy tokens: Int, of reservation: Reservation) -> [PageHandle] {
        (0..<max(0, tokens) / pageTokens).compactMap { handle(page: $0, of: reservation) }
    }

    /// A handle for page `index` of a reservation, for sharing it.
    public func handle(page index: Int, of reservation: Reservation) -> PageHandle? {
        guard let record = live(reservation), record.pages.indices.contains(index) else { return nil }
        let page = record.pages[index]
        return PageHandle(index: page, generation: pagePool[page].generation)
    }

    /// State of slot `index`; nil for padding and beyond the pool.
    public func state(slot index: Int) -> UnitState? {
        (1..<(slotCount + 1)).contains(index) ? slotPool[index].state : nil
    }

    /// State of page `index`; nil for padding and beyond the pool.
    public func state(page index: Int) -> UnitState? {
        (1..<(pageCount + 1)).contains(index) ? pagePool[index].state : nil
    }

    private func live(_ reservation: Reservation) -> Record? {
        isLive(reservation) ? records[reservation.slot] : nil
    }

    private func canShare(_ page: PageHandle) -> Bool {
        guard (1..<(pageCount + 1)).contains(page.index) else { return false }
        let unit = pagePool[page.index]
        return unit.generation == page.generation && unit.owners + unit.keepers > 0 && unit.isWritten
    }

    private mutating func stamp() -> UInt64 {
        defer { nextStamp += 1 }
        return nextStamp
    }

    private mutating func takePages(_ count: Int) -> [Int] {
        precondition(count <= pagePool.freeCount, "\(count) pages are taken, and fewer are free")
        let generation = stamp()
        return (0..<count).compactMap { _ in pagePool.take(generation: generation) }
    }

    private mutating func drop(_ record: Record, slot: Int, _ body: (inout UnitPool.Unit) -> Void) {
        precondition(record.holds.isEmpty, "memory that is held does not become free")
        records[slot] = nil
        forEachUnit(of: record, slot: slot, body)
    }

    private mutating func forEachUnit(of record: Record, slot: Int, _ body: (inout UnitPool.Unit) -> Void) {
        slotPool.change(slot, body)
        for page in record.pages.reversed() { pagePool.change(page, body) }
    }
}
