import Serving

/// Requests that wait to be let in, and the one order in which they are: the queue of an instance for memory, and the
/// gateway's for room on an instance.
///
/// Higher priority goes first, then who was in before and lost its place, then who came first. One that does not fit may
/// be passed over by others behind it, but only so often: then nobody passes until it is in. A wait has an end, and a
/// reason for waiting can bring it forward.
public struct AdmissionQueue<Reason: Sendable & Equatable>: Sendable {
    /// A place in the line.
    private struct Entry: Sendable {
        let id: UInt64
        var reason: Reason
        let priority: Int
        let wasIn: Bool
        let sequence: UInt64
        let expires: UInt64
        var reasonEnds: UInt64?
        var passedOver = 0

        /// When the wait is over, microseconds.
        var ends: UInt64 { min(expires, reasonEnds ?? .max) }

        func precedes(_ other: Entry) -> Bool {
            if priority != other.priority { return priority > other.priority }
            if wasIn != other.wasIn { return wasIn }
            return sequence < other.sequence
        }
    }

    /// One look at the queue from its front, until someone must not be passed over.
    public struct Pass: Sendable {
        fileprivate var index = 0
        fileprivate var looks: Int
        fileprivate var isOver = false
    }

    /// How often one may be passed over.
    public let passes: Int
    /// Those that are looked at in one pass; the rest wait for the next.
    public let looks: Int
    /// In the order in which they are let in.
    private var waiting: [Entry] = []

    /// An empty queue.
    public init(passes: Int, looks: Int) {
        precondition(passes >= 0 && looks > 0, "a queue whose front is never looked at lets nobody in")
        self.passes = passes
        self.looks = looks
    }

    /// How many wait.
    public var count: Int { waiting.count }
    /// True when nobody does.
    public var isEmpty: Bool { waiting.isEmpty }
    /// When the first wait ends; nil when nobody waits.
    public var nextEnd: UInt64? { waiting.lazy.map(\.ends).min() }
    /// When the first wait ends of those that go on after `time`; nil when there is none.
    public func nextEnd(after time: UInt64) -> UInt64? { waiting.lazy.map(\.ends).filter { $0 > time }.min() }
    /// Why a request waits; nil when it does not.
    public func reason(of id: UInt64) -> Reason? { waiting.first { $0.id == id }?.reason }

    /// Puts a request in its place.
    ///
    /// - sequence: when it first came, among all.
    /// - wasIn: true when it was let in before and has to wait again.
    public mutating func enter(
        _ request: Request, sequence: UInt64, wasIn: Bool = false, expires: UInt64, because reason: Reason
    ) {
        precondition(!waiting.contains { $0.id == request.id }, "request \(request.id) waits already")
        let entry = Entry(
            id: request.id, reason: reason, priority: request.priority, wasIn: wasIn, sequence: sequence,
            expires: expires)
        waiting.insert(entry, at: waiting.firstIndex(where: entry.precedes) ?? waiting.endIndex)
    }

    /// A request waits no more, whatever for.
    public mutating func leave(_ id: UInt64) { waiting.removeAll { $0.id == id } }

    /// Takes out those whose wait is over; they come with what they waited for.
    public mutating func expire(now: UInt64) -> [(id: UInt64, reason: Reason)] {
        let over = waiting.filter { $0.ends <= now }.map { ($0.id, $0.reason) }
        if !over.isEmpty { waiting.removeAll { $0.ends <= now } }
        return over
    }

    // MARK: Letting in

    /// Begins a pass: ask `next` for who is to be tried, and tell what became of it with `admit` or `deny`.
    public func pass() -> Pass { Pass(looks: looks) }

    /// The next to be tried; nil when the pass is over.
    public func next(_ pass: inout Pass) -> UInt64? {
        guard !pass.isOver, pass.index < min(waiting.count, pass.looks) else { return nil }
        return waiting[pass.index].id
    }

    /// The one that `next` gave is in. Those before it have been passed over.
    public mutating func admit(_ pass: inout Pass) {
        precondition(pass.index < waiting.count, "nobody was to be tried")
        waiting.remove(at: pass.index)
        for index in 0..<pass.index {
            waiting[index].passedOver += 1
            if waiting[index].passedOver >= passes { pass.isOver = true }
        }
    }

    /// The one that `next` gave cannot be let in. Whoever was passed over often enough lets nobody pass any more.
    ///
    /// - ends: when that reason ends the wait. Who waited for something of the kind already keeps its time.
    public mutating func deny(_ pass: inout Pass, because reason: Reason, ends: UInt64? = nil) {
        precondition(pass.index < waiting.count, "nobody was to be tried")
        let index = pass.index
        waiting[index].reason = reason
        waiting[index].reasonEnds = ends.map { waiting[index].reasonEnds ?? $0 }
        if waiting[index].passedOver >= passes { pass.isOver = true }
        pass.index += 1
    }
}
