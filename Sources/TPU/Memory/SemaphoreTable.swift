/// The counts of every semaphore on every device, and the granules whose copies they stand for.
///
/// A copy counts as waited for when, after a wait, its semaphore is back at zero with nothing under way: a byte count
/// cannot say which of two copies on one semaphore has landed.
struct SemaphoreTable: ~Copyable {
    struct State {
        /// Bytes that arrived and were not waited for.
        var value: Int64 = 0
        /// Bytes of copies that were issued and have not arrived.
        var underWay: Int64 = 0
        var firstPending: Int32 = -1
    }

    /// Granules of one side of a copy that was not waited for.
    struct Pending {
        var next: Int32
        var isWrite: Bool
        var buffer: Int32
        var granules: GranuleSet
        /// Who sent it, and the sender's step then; -1 for a local copy.
        var sender: Int32
        var senderStep: UInt32
    }

    let semaphoreCount: Int
    private let deviceCount: Int
    private let states: UnsafeMutablePointer<State>
    private var pending: [Pending] = []
    private var freePending: Int32 = -1

    init(semaphoreCount: Int, deviceCount: Int) {
        self.semaphoreCount = semaphoreCount
        self.deviceCount = deviceCount
        states = .allocate(capacity: max(1, semaphoreCount * deviceCount))
        states.initialize(repeating: State(), count: max(1, semaphoreCount * deviceCount))
    }

    deinit { states.deallocate() }

    @inline(__always)
    func state(_ semaphore: Int, device: Int) -> UnsafeMutablePointer<State> {
        states + device * semaphoreCount + semaphore
    }

    mutating func attach(_ entry: Pending, to semaphore: Int, device: Int) {
        let state = state(semaphore, device: device)
        var entry = entry
        entry.next = state.pointee.firstPending
        if freePending >= 0 {
            let slot = freePending
            freePending = pending[Int(slot)].next
            pending[Int(slot)] = entry
            state.pointee.firstPending = slot
        } else {
            pending.append(entry)
            state.pointee.firstPending = Int32(pending.count - 1)
        }
    }

    /// Hands every granule of the semaphore's copies to `body`, and forgets them.
    mutating func settle(_ semaphore: Int, device: Int, _ body: (Pending) -> Void) {
        let state = state(semaphore, device: device)
        var slot = state.pointee.firstPending
        while slot >= 0 {
            let entry = pending[Int(slot)]
            body(entry)
            pending[Int(slot)].next = freePending
            freePending = slot
            slot = entry.next
        }
        state.pointee.firstPending = -1
    }
}
