import StatePools

/// The scheduler's answer to a request.
public enum Admission: Sendable, Equatable {
    /// It holds memory.
    case admitted
    /// It waits; it will be admitted, expire or be removed.
    case deferred(Deferral)
    /// It is not here.
    case rejected(AdmissionRefusal)
}

/// Why a request waits. None of these is an abort.
public enum Deferral: Sendable, Equatable, CustomStringConvertible {
    /// A recurrent slot or KV pages are missing.
    case noMemory(ReservationRefusal)
    /// As many requests compute, or receive, as may.
    case atLimit(Int)
    /// Others that came first, or matter more, have not been admitted yet.
    case behindOthers

    /// One sentence.
    public var description: String {
        switch self {
        case .noMemory(let refusal): refusal.description
        case .atLimit(let limit): "\(limit) requests run, which is the limit"
        case .behindOthers: "requests ahead of it wait for memory"
        }
    }
}

/// Why a request was turned away before it held anything.
public enum AdmissionRefusal: Error, Sendable, Equatable, CustomStringConvertible {
    /// The waiting queue is at its limit. Safe to retry elsewhere or later.
    case queueFull(limit: Int)
    /// The request could never fit into this instance's pools.
    case neverFits(tokens: Int, limit: Int)
    /// A request of that number is here.
    case duplicate(UInt64)
    /// The token counts make no sense.
    case invalid(String)

    /// One sentence with the limit.
    public var description: String {
        switch self {
        case .queueFull(let limit): "the waiting queue is at its limit of \(limit) requests"
        case .neverFits(let tokens, let limit):
            "prompt and max_tokens together are \(tokens) tokens, the KV pool holds \(limit)"
        case .duplicate(let id): "request \(id) is here already"
        case .invalid(let sentence): sentence
        }
    }
}

/// One request's part of a step.
public struct StepEntry: Sendable, Equatable {
    /// The request.
    public let id: UInt64
    /// Its memory.
    public let reservation: Reservation
    /// Absolute positions computed in this step.
    public let positions: Range<Int>
    /// True when the last row's hidden state is sampled.
    public let samples: Bool
    /// Keeps the memory from being reused until the step is completed or abandoned.
    let hold: Hold

    /// False for the one row that the next token of a stream follows from.
    public var isPrefill: Bool { positions.count > 1 || !samples }
}

/// A state that is copied before a step computes, because it is kept for later or was kept for this. What is read stays
/// as it is, and what is written is nobody else's, until the step is over.
public struct StateCopy: Sendable {
    /// Recurrent slots.
    public let slots: (from: Int, to: Int)
    /// KV pages: the one that is not full; pages that are full are shared. Nil when there is none.
    public let pages: (from: Int, to: Int)?
    let holds: [Hold]
}

/// What happened to a request outside of steps.
public enum SchedulerEvent: Sendable, Equatable {
    /// It holds memory from now on. `transfer` is open for requests whose state is handed out or received, and must be
    /// ended with `endTransfer` (or `received`) when nothing is sent or written through it any more.
    case admitted(id: UInt64, Reservation, transfer: Hold?)
    /// It waited for memory too long and is gone.
    case expired(id: UInt64)
    /// It gave its memory up and waits again; its tokens will be recomputed. A decode-only one is admitted, and must
    /// receive its prompt's state, again.
    case preempted(id: UInt64)
    /// The prompt is computed; the state stays until `remove`.
    case promptComplete(id: UInt64)
}

/// How full an instance is: the snapshot placement decides on.
public struct SchedulerLoad: Sendable, Equatable {
    /// Requests that wait for memory.
    public let waiting: Int
    /// Requests whose state is on its way in.
    public let receiving: Int
    /// Requests that compute.
    public let computing: Int
    /// Requests whose prompt is done and whose state is being handed out.
    public let handingOut: Int
    /// Recurrent slots by state.
    public let slots: PoolCounts
    /// KV pages by state.
    public let pages: PoolCounts
    /// Requests preempted so far.
    public let preemptions: Int
    /// Tokens that were not computed because their state was kept, so far.
    public let prefixHitTokens: Int
    /// Sequences whose state is kept.
    public let prefixSnapshots: Int
    /// Kept states that made room for others, so far.
    public let prefixEvictions: Int

    /// Recurrent slots of requests, those in quarantine included.
    public var slotsInUse: Int { slots.total - slots[.free] - slots[.cached] }
    /// KV pages of requests, those in quarantine included.
    public var pagesInUse: Int { pages.total - pages[.free] - pages[.cached] }
}

extension SchedulerLoad {
    /// Two ranks taken together.
    static func + (one: SchedulerLoad, other: SchedulerLoad) -> SchedulerLoad {
        SchedulerLoad(
            waiting: one.waiting + other.waiting, receiving: one.receiving + other.receiving,
            computing: one.computing + other.computing, handingOut: one.handingOut + other.handingOut,
            slots: one.slots + other.slots, pages: one.pages + other.pages,
            preemptions: one.preemptions + other.preemptions,
            prefixHitTokens: one.prefixHitTokens + other.prefixHitTokens,
            prefixSnapshots: one.prefixSnapshots + other.prefixSnapshots,
            prefixEvictions: one.prefixEvictions + other.prefixEvictions)
    }
}
