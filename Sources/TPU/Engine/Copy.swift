/// One copy under way.
struct Copy {
    var source: Region
    var target: Region
    var sourceDevice: Int
    var targetDevice: Int
    /// When it leaves the core.
    var issued: Picoseconds
    /// Index of the semaphore that is signalled at the source when the bytes have left; of a local copy, at the end.
    var sentSemaphore: Int
    /// Index of the semaphore that is signalled at the target; -1 for a local copy.
    var receivedSemaphore: Int
    var hasPriority: Bool
    /// The links still to cross, as a range of the routing table.
    var nextLink = 0
    var lastLink = 0
    /// Latency to add on arrival.
    var latency: Picoseconds = 0
    var bytes: Int64

    var isRemote: Bool { sourceDevice != targetDevice }
}

/// Copies under way by number; numbers are used again.
struct CopyTable: ~Copyable {
    private(set) var copies: UnsafeMutablePointer<Copy>
    private var capacity = 4096
    private var used = 0
    private var free: [UInt32] = []

    init() { copies = .allocate(capacity: capacity) }

    deinit { copies.deallocate() }

    @inline(__always)
    mutating func insert(_ copy: Copy) -> Int {
        if let number = free.popLast() {
            copies[Int(number)] = copy
            return Int(number)
        }
        if used == capacity { grow() }
        (copies + used).initialize(to: copy)
        used += 1
        return used - 1
    }

    @inline(__always)
    mutating func remove(_ number: Int) { free.append(UInt32(truncatingIfNeeded: number)) }

    private mutating func grow() {
        let larger = UnsafeMutablePointer<Copy>.allocate(capacity: 2 * capacity)
        larger.moveInitialize(from: copies, count: used)
        copies.deallocate()
        copies = larger
        capacity *= 2
    }
}
