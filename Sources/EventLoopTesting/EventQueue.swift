/// Actions by time, and by order of arrival within the same microsecond: a binary heap.
struct EventQueue {
    struct Event {
        let time: UInt64
        let identifier: UInt64
        let loop: MemoryLoop
        /// What a loop asked for, rather than what the network brings it.
        let isTimer: Bool
        let action: @Sendable () -> Void

        func isBefore(_ other: Event) -> Bool { (time, identifier) < (other.time, other.identifier) }
    }

    private var heap: [Event] = []
    private var live: Set<UInt64> = []
    private var lastIdentifier: UInt64 = 0

    /// Actions that were not cancelled.
    var count: Int { live.count }

    /// Time of the earliest action.
    var next: UInt64? {
        mutating get {
            dropCancelled()
            return heap.first?.time
        }
    }

    /// Adds an action; the identifier is never 0.
    mutating func push(
        at time: UInt64, _ loop: MemoryLoop, isTimer: Bool, _ action: @escaping @Sendable () -> Void
    ) -> UInt64 {
        lastIdentifier += 1
        heap.append(Event(time: time, identifier: lastIdentifier, loop: loop, isTimer: isTimer, action: action))
        live.insert(lastIdentifier)
        var index = heap.count - 1
        while index > 0, heap[index].isBefore(heap[(index - 1) / 2]) {
            heap.swapAt(index, (index - 1) / 2)
            index = (index - 1) / 2
        }
        return lastIdentifier
    }

    mutating func pop() -> Event? {
        dropCancelled()
        guard !heap.isEmpty else { return nil }
        let event = removeFirst()
        live.remove(event.identifier)
        return event
    }

    /// Forgets an action. What it holds goes soon: cancelled ones never outnumber the others by much.
    mutating func cancel(_ identifier: UInt64) {
        guard live.remove(identifier) != nil, heap.count > 2 * live.count + 64 else { return }
        heap = inOrder
    }

    /// Takes all actions out, in order.
    mutating func removeAll() -> [Event] {
        let all = inOrder
        heap = []
        live = []
        return all
    }

    /// What was not cancelled, the first one first; a sorted array is a heap too.
    private var inOrder: [Event] { heap.filter { live.contains($0.identifier) }.sorted { $0.isBefore($1) } }

    private mutating func dropCancelled() {
        while let first = heap.first, !live.contains(first.identifier) { _ = removeFirst() }
    }

    private mutating func removeFirst() -> Event {
        heap.swapAt(0, heap.count - 1)
        let event = heap.removeLast()
        var index = 0
        while true {
            var least = index
            for child in [2 * index + 1, 2 * index + 2] where child < heap.count && heap[child].isBefore(heap[least]) {
                least = child
            }
            guard least != index else { return event }
            heap.swapAt(index, least)
            index = least
        }
    }
}
