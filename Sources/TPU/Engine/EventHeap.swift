/// What happens at a point of simulated time.
enum EventKind: UInt32 {
    /// The next copy of a core's issue queue leaves the core.
    case issue
    /// The copy at the head of a link has left it.
    case linkDeparture
    /// A copy has arrived.
    case completion
    /// A long copy of a device's HBM may be done.
    case memory
    /// All cores have reached the barrier.
    case barrier
    /// A core's signal has arrived.
    case signal
}

/// Events by time, and by order of insertion within the same picosecond: a heap with four children per node.
struct EventHeap: ~Copyable {
    struct Event {
        let time: Picoseconds
        let order: UInt64
        let kind: EventKind
        let subject: UInt32

        @inline(__always)
        func isBefore(_ other: Event) -> Bool { time != other.time ? time < other.time : order < other.order }
    }

    private var heap: UnsafeMutablePointer<Event>
    private var capacity = 1024
    private(set) var count = 0
    private(set) var pushed: UInt64 = 0

    init() { heap = .allocate(capacity: capacity) }

    deinit { heap.deallocate() }

    @inline(__always)
    mutating func push(at time: Picoseconds, _ kind: EventKind, _ subject: Int) {
        if count == capacity { grow() }
        let event = Event(time: time, order: pushed, kind: kind, subject: UInt32(truncatingIfNeeded: subject))
        pushed &+= 1
        var position = count
        count &+= 1
        while position > 0 {
            let parent = (position &- 1) >> 2
            guard event.isBefore(heap[parent]) else { break }
            heap[position] = heap[parent]
            position = parent
        }
        heap[position] = event
    }

    @inline(__always)
    mutating func pop() -> Event? {
        guard count > 0 else { return nil }
        let first = heap[0]
        count &-= 1
        guard count > 0 else { return first }
        let last = heap[count]
        var position = 0
        while true {
            let child = position << 2 &+ 1
            guard child < count else { break }
            var least = child
            var other = child &+ 1
            let end = min(child &+ 4, count)
            while other < end {
                if heap[other].isBefore(heap[least]) { least = other }
                other &+= 1
            }
            guard heap[least].isBefore(last) else { break }
            heap[position] = heap[least]
            position = least
        }
        heap[position] = last
        return first
    }

    private mutating func grow() {
        let larger = UnsafeMutablePointer<Event>.allocate(capacity: 2 * capacity)
        larger.moveInitialize(from: heap, count: count)
        heap.deallocate()
        heap = larger
        capacity *= 2
    }
}

/// Copy numbers in order of arrival: a ring that grows.
struct CopyQueue {
    private var ring = [UInt32](repeating: 0, count: 16)
    private var head = 0
    private(set) var count = 0

    @inline(__always)
    mutating func append(_ copy: UInt32) {
        if count == ring.count { grow() }
        ring[(head &+ count) & (ring.count &- 1)] = copy
        count &+= 1
    }

    @inline(__always)
    mutating func removeFirst() -> UInt32 {
        let first = ring[head]
        head = (head &+ 1) & (ring.count &- 1)
        count &-= 1
        return first
    }

    var first: UInt32? { count > 0 ? ring[head] : nil }

    private mutating func grow() {
        var larger = [UInt32](repeating: 0, count: 2 * ring.count)
        for position in 0..<count { larger[position] = ring[(head + position) & (ring.count - 1)] }
        (ring, head) = (larger, 0)
    }
}
