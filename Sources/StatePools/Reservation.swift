/// Whose memory it is. The data-parallel rank is part of the key, because pages and slots mean nothing on another one.
public struct StateKey: Sendable, Hashable {
    /// A running request, or a prefix kept for requests to come.
    public enum Owner: Sendable, Hashable {
        /// A request by its number.
        case request(UInt64)
        /// A cached prefix by the hash of its token blocks.
        case prefix(UInt64)
    }

    /// Data-parallel rank (attention instance) that holds the memory.
    public let dpRank: Int
    /// Request or prefix.
    public let owner: Owner

    /// A key on `dpRank`.
    public init(dpRank: Int, owner: Owner) {
        self.dpRank = dpRank
        self.owner = owner
    }
}

/// What one owner holds: a recurrent slot and KV pages, under one generation that no other reservation ever has.
///
/// A handle, not the truth: the pools know what belongs to it, so that an old copy can do no harm.
public struct Reservation: Sendable, Equatable {
    /// Recurrent slot, 1 or more.
    public let slot: Int
    /// KV pages in token order; page `i` holds tokens `i * pageTokens ..< (i + 1) * pageTokens`.
    public internal(set) var pages: [Int]
    /// How many of the first pages were written before, and are shared with whoever had them then.
    public let sharedPages: Int
    /// Generation of the reservation.
    public let generation: UInt64
    /// Whose it is.
    public let key: StateKey
}

/// One page as it was at one hand-out. After the page was freed and handed out again, the handle fits no more.
public struct PageHandle: Sendable, Hashable {
    /// The page, 1 or more.
    public let index: Int
    /// Generation of the hand-out.
    public let generation: UInt64
}

/// A step or transfer that reads or writes a reservation's memory. While one is open nothing of it becomes free.
public struct Hold: Sendable, Hashable {
    /// What reaches the memory.
    public enum Purpose: Sendable, Hashable {
        /// A step in flight.
        case step
        /// State being sent or received.
        case transfer
    }

    /// What reaches the memory.
    public let purpose: Purpose
    /// Data-parallel rank whose memory is reached.
    public let dpRank: Int
    let slot: Int
    let generation: UInt64
    let number: UInt64
}

/// What a release did.
public enum ReleaseOutcome: Sendable, Equatable {
    /// All of it is free; pages that others share stay with them.
    case freed
    /// The owner is gone; it becomes free when this many open holds have ended.
    case quarantined(holds: Int)
    /// The owner is gone; the memory is kept for others until it is needed.
    case kept
    /// It was released before, or never was. Nothing changed, and it was counted.
    case stale
}

/// Why memory could not be had. None of these is an abort: the request waits and asks again, or goes elsewhere.
public enum ReservationRefusal: Error, Sendable, Equatable, CustomStringConvertible {
    /// Every recurrent slot is taken.
    case noSlot(slots: Int)
    /// Fewer pages are free than are needed.
    case noPages(needed: Int, free: Int)
    /// The request could never fit, however long it waited.
    case neverFits(needed: Int, pages: Int)
    /// The reservation, or a page it should share, is gone.
    case stale

    /// One sentence with the limit.
    public var description: String {
        switch self {
        case .noSlot(let slots): "all \(slots) recurrent slots are in use"
        case .noPages(let needed, let free): "\(needed) KV pages needed, \(free) free"
        case .neverFits(let needed, let pages): "\(needed) KV pages needed, the pool holds \(pages)"
        case .stale: "the reservation is of an earlier generation"
        }
    }
}
