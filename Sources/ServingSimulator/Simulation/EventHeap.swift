/// Events by time; those at the same time in the order in which they were added.
struct EventHeap<Event> {
    private var entries: [(time: UInt64, order: UInt64, event: Event)] = []
    private var added: UInt64 = 0

    /// Time of the next event.
    var nextTime: UInt64? { entries.first?.time }

    mutating func add(_ event: Event, at time: UInt64) {
        entries.append((time, added, event))
        added += 1
        var child = entries.count - 1
        while child > 0, precedes(child, (child - 1) / 2) {
            entries.swapAt(child, (child - 1) / 2)
            child = (child - 1) / 2
        }
    }

    /// The next event if it is due at `time`.
    mutating func take(until time: UInt64) -> Event? {
        guard let first = entries.first, first.time <= time else { return nil }
        entries.swapAt(0, entries.count - 1)
        entries.removeLast()
        var parent = 0
        while true {
            let left = 2 * parent + 1
            guard left < entries.count else { return first.event }
            let child = left + 1 < entries.count && precedes(left + 1, left) ? left + 1 : left
            guard precedes(child, parent) else { return first.event }
            entries.swapAt(child, parent)
            parent = child
        }
    }

    private func precedes(_ one: Int, _ other: Int) -> Bool {
        (entries[one].time, entries[one].order) < (entries[other].time, entries[other].order)
    }
}
