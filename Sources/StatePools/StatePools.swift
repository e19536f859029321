/// Why a reservation could not be made. Neither reason is an abort: the request waits and asks again.
public enum ReservationRefusal: Error, Sendable, Equatable, CustomStringConvertible {
    /// Every recurrent slot is taken.
    case noSlot(slots: Int)
    /// Fewer pages are free than the request may come to need.
    case noPages(needed: Int, free: Int)
    /// The request could never fit, however long it waited.
    case neverFits(needed: Int, pages: Int)

    /// One sentence with the limit.
    public var description: String {
        switch self {
        case .noSlot(let slots): "all \(slots) recurrent slots are in use"
        case .noPages(let needed, let free): "\(needed) KV pages needed, \(free) free"
        case .neverFits(let needed, let pages): "\(needed) KV pages needed, the pool holds \(pages)"
        }
    }
}

/// What one request owns: a recurrent slot and all KV pages it may come to need, under one generation.
///
/// The generation makes a stale handle recognisable: releasing the same reservation twice is reported, never obeyed.
public struct Reservation: Sendable, Equatable {
    /// Recurrent slot, one per request.
    public let slot: Int
    /// KV pages in token order; page `i` holds tokens `i * pageTokens ..< (i + 1) * pageTokens`.
    public let pages: [Int]
    /// Generation of the slot when it was given out.
    public let generation: UInt64
}

/// Bookkeeping for the two kinds of memory a request owns: token-indexed KV pages for the MLA layers and one
/// request-indexed recurrent slot for the linear layers. It hands out indices; the bytes live elsewhere.
///
/// Both are reserved together at admission, for the request's whole possible length, so that a running request
/// cannot run out of memory half-way.
public struct StatePools: Sendable {
    /// Tokens in one KV page.
    public let pageTokens: Int
    /// Recurrent slots in the pool.
    public let slotCount: Int
    /// KV pages in the pool.
    public let pageCount: Int
    private var freeSlots: [Int]
    private var freePages: [Int]
    private var generations: [UInt64]

    /// A pool of `slotCount` recurrent slots and `pageCount` pages of `pageTokens` tokens each.
    public init(slotCount: Int, pageCount: Int, pageTokens: Int = 64) {
        self.slotCount = slotCount
        self.pageCount = pageCount
        self.pageTokens = pageTokens
        freeSlots = Array((0..<slotCount).reversed())
        freePages = Array((0..<pageCount).reversed())
        generations = Array(repeating: 0, count: slotCount)
    }

    /// Recurrent slots in use.
    public var slotsInUse: Int { slotCount - freeSlots.count }
    /// KV pages in use.
    public var pagesInUse: Int { pageCount - freePages.count }

    /// Pages that `tokens` tokens take.
    public func pages(forTokens tokens: Int) -> Int { (tokens + pageTokens - 1) / pageTokens }

    /// Reserves one slot and the pages for up to `tokens` tokens, or says why not and changes nothing.
    public mutating func reserve(tokens: Int) throws(ReservationRefusal) -> Reservation {
        let needed = pages(forTokens: tokens)
        guard needed <= pageCount else { throw .neverFits(needed: needed, pages: pageCount) }
        guard needed <= freePages.count else { throw .noPages(needed: needed, free: freePages.count) }
        guard let slot = freeSlots.popLast() else { throw .noSlot(slots: slotCount) }
        let pages = Array(freePages.suffix(needed).reversed())
        freePages.removeLast(needed)
        return Reservation(slot: slot, pages: pages, generation: generations[slot])
    }

    /// Gives a reservation back. Returns false, and changes nothing, when it was given back before.
    public mutating func release(_ reservation: Reservation) -> Bool {
        guard generations[reservation.slot] == reservation.generation else { return false }
        generations[reservation.slot] += 1
        freeSlots.append(reservation.slot)
        freePages.append(contentsOf: reservation.pages.reversed())
        return true
    }
}
