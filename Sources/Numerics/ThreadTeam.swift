import CSIMD
import Glibc
import Synchronization

/// A few threads that share out the parts of one job at a time. The caller works too; idle threads spin for some
/// microseconds, so that a layer's kernels follow each other quickly, and then sleep, because services share cores.
///
/// Which thread computes a part never changes the part's result.
public final class ThreadTeam: Sendable {
    /// Threads that work on a job, the caller included.
    public let threadCount: Int

    private let shared = TeamState()
    private let threads: [pthread_t]
    // Given out and resized for one caller at a time.
    private nonisolated(unsafe) let sharedMemory = ScratchMemory()
    private nonisolated(unsafe) let workerMemory: [ScratchMemory]

    /// A team of `threadCount` (at least 1) threads, the caller included.
    public init(threadCount: Int) {
        self.threadCount = max(1, threadCount)
        workerMemory = (0..<self.threadCount).map { _ in ScratchMemory() }
        var threads: [pthread_t] = []
        for worker in 1..<max(2, self.threadCount) where self.threadCount > 1 {
            var thread = pthread_t()
            let argument = Unmanaged.passRetained(TeamMember(state: shared, worker: worker))
            let status = pthread_create(&thread, nil, teamWorker, argument.toOpaque())
            if status == 0 { threads.append(thread) } else { argument.release() }
        }
        self.threads = threads
    }

    deinit {
        shared.stop()
        for thread in threads { pthread_join(thread, nil) }
    }

    /// Calls `body` once for every part `0 ..< parts`, in any order and on any thread, and returns when all are done.
    /// One caller at a time.
    public func run(_ parts: Int, _ body: (Int) -> Void) {
        guard parts > 1, !threads.isEmpty else {
            for part in 0..<max(0, parts) { body(part) }
            return
        }
        withoutActuallyEscaping(body) { body in shared.run(parts) { part, _ in body(part) } }
    }

    /// The same, with the number of the thread that runs the part: 0 ..< threadCount, 0 for the caller.
    public func run(_ parts: Int, _ body: (_ part: Int, _ worker: Int) -> Void) {
        guard parts > 1, !threads.isEmpty else {
            for part in 0..<max(0, parts) { body(part, 0) }
            return
        }
        withoutActuallyEscaping(body) { shared.run(parts, $0) }
    }

    // MARK: Scratch

    /// Makes sure that the scratch memory has these sizes; what was in it is lost. Sizes only grow, so that a steady
    /// load allocates nothing.
    public func reserve(shared sharedBytes: Int, perWorker workerBytes: Int) {
        sharedMemory.reserve(sharedBytes)
        for memory in workerMemory { memory.reserve(workerBytes) }
    }

    /// Memory that all threads of a job share, aligned to 64 bytes.
    public var sharedScratch: UnsafeMutableRawPointer { sharedMemory.pointer }

    /// Memory of one thread of a job, [bytes of `reserve`], aligned to 64 bytes.
    public func workerScratch(_ worker: Int) -> UnsafeMutableRawPointer { workerMemory[worker].pointer }
}

private final class ScratchMemory {
    private(set) var pointer = UnsafeMutableRawPointer.allocate(byteCount: 64, alignment: 64)
    private var byteCount = 64

    func reserve(_ bytes: Int) {
        guard bytes > byteCount else { return }
        pointer.deallocate()
        pointer = .allocate(byteCount: bytes, alignment: 64)
        byteCount = bytes
    }

    deinit { pointer.deallocate() }
}

/// What a thread is told when it starts.
private final class TeamMember {
    let state: TeamState
    let worker: Int

    init(state: TeamState, worker: Int) {
        self.state = state
        self.worker = worker
    }
}

private final class TeamState: Sendable {
    private nonisolated(unsafe) let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private nonisolated(unsafe) let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
    private let generation = Atomic<Int>(0)
    private let isOpen = Atomic<Bool>(false)
    private let isStopped = Atomic<Bool>(false)
    private let users = Atomic<Int>(0)
    private let nextPart = Atomic<Int>(0)
    private struct Job {
        var parts = 0
        var body: ((Int, Int) -> Void)?
        /// Under `mutex`.
        var sleepers = 0
    }
    // Written while no worker is inside: see `work`.
    private nonisolated(unsafe) let job = UnsafeMutablePointer<Job>.allocate(capacity: 1)

    init() {
        pthread_mutex_init(mutex, nil)
        pthread_cond_init(condition, nil)
        job.initialize(to: Job())
    }

    deinit {
        pthread_mutex_destroy(mutex)
        pthread_cond_destroy(condition)
        mutex.deallocate()
        condition.deallocate()
        job.deinitialize(count: 1)
        job.deallocate()
    }

    func run(_ parts: Int, _ body: @escaping (Int, Int) -> Void) {
        job.pointee.parts = parts
        job.pointee.body = body
        nextPart.store(0, ordering: .relaxed)
        isOpen.store(true, ordering: .sequentiallyConsistent)
        wake()
        claim(body, parts, 0)
        isOpen.store(false, ordering: .sequentiallyConsistent)
        var spins = 0
        while users.load(ordering: .sequentiallyConsistent) != 0 {
            spins += 1
            if spins > 2000 { sched_yield() } else { spinHint() }
        }
        job.pointee.body = nil
    }

    func stop() {
        isStopped.store(true, ordering: .sequentiallyConsistent)
        wake()
    }

    func work(_ worker: Int) {
        var seen = 0
        while !isStopped.load(ordering: .acquiring) {
            seen = waitForJob(after: seen)
            // A job is entered by being counted first and looked at second; the caller closes it first and reads
            // the count second, so that it never returns while a worker is inside.
            users.add(1, ordering: .sequentiallyConsistent)
            if isOpen.load(ordering: .sequentiallyConsistent), let body = job.pointee.body {
                claim(body, job.pointee.parts, worker)
            }
            users.subtract(1, ordering: .sequentiallyConsistent)
        }
    }

    private func claim(_ body: (Int, Int) -> Void, _ parts: Int, _ worker: Int) {
        while true {
            let part = nextPart.add(1, ordering: .relaxed).oldValue
            guard part < parts else { return }
            body(part, worker)
        }
    }

    private func wake() {
        pthread_mutex_lock(mutex)
        generation.add(1, ordering: .sequentiallyConsistent)
        if job.pointee.sleepers > 0 { pthread_cond_broadcast(condition) }
        pthread_mutex_unlock(mutex)
    }

    private func waitForJob(after seen: Int) -> Int {
        for _ in 0..<Self.spins {
            let now = generation.load(ordering: .acquiring)
            if now != seen { return now }
            spinHint()
        }
        pthread_mutex_lock(mutex)
        job.pointee.sleepers += 1
        while generation.load(ordering: .acquiring) == seen { pthread_cond_wait(condition, mutex) }
        job.pointee.sleepers -= 1
        pthread_mutex_unlock(mutex)
        return generation.load(ordering: .acquiring)
    }

    /// Rounds before a thread goes to sleep: some twenty microseconds, longer than the pieces of a layer that run on one
    /// thread and shorter than what a service waits for another.
    private static let spins = 1000
}

private func teamWorker(_ argument: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
    guard let argument else { return nil }
    let member = Unmanaged<TeamMember>.fromOpaque(argument).takeRetainedValue()
    member.state.work(member.worker)
    return nil
}
