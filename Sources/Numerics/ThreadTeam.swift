import Glibc
import Synchronization

/// A few threads that share out the parts of one job at a time. The caller works too; idle threads spin for some
/// microseconds, so that a layer's kernels follow each other quickly, and then sleep, because services share cores.
///
/// Which thread computes a part never changes the part's result.
public final class ThreadTeam: @unchecked Sendable {
    /// Threads that work on a job, the caller included.
    public let threadCount: Int

    private let shared = TeamState()
    private var threads: [pthread_t] = []

    /// A team of `threadCount` (at least 1) threads, the caller included.
    public init(threadCount: Int) {
        self.threadCount = max(1, threadCount)
        for _ in 1..<max(2, self.threadCount) where self.threadCount > 1 {
            var thread = pthread_t()
            let argument = Unmanaged.passRetained(shared).toOpaque()
            let status = pthread_create(&thread, nil, teamWorker, argument)
            if status == 0 { threads.append(thread) } else { Unmanaged<TeamState>.fromOpaque(argument).release() }
        }
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
        withoutActuallyEscaping(body) { shared.run(parts, $0) }
    }
}

private final class TeamState: @unchecked Sendable {
    private var mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private var condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
    private let generation = Atomic<Int>(0)
    private let isOpen = Atomic<Bool>(false)
    private let isStopped = Atomic<Bool>(false)
    private let users = Atomic<Int>(0)
    private let nextPart = Atomic<Int>(0)
    private var parts = 0
    private var body: ((Int) -> Void)?
    private var sleepers = 0

    init() {
        pthread_mutex_init(mutex, nil)
        pthread_cond_init(condition, nil)
    }

    deinit {
        pthread_mutex_destroy(mutex)
        pthread_cond_destroy(condition)
        mutex.deallocate()
        condition.deallocate()
    }

    func run(_ parts: Int, _ body: @escaping (Int) -> Void) {
        self.parts = parts
        self.body = body
        nextPart.store(0, ordering: .relaxed)
        isOpen.store(true, ordering: .sequentiallyConsistent)
        wake()
        claim(body, parts)
        isOpen.store(false, ordering: .sequentiallyConsistent)
        var spins = 0
        while users.load(ordering: .sequentiallyConsistent) != 0 {
            spins += 1
            if spins > 2000 { sched_yield() } else { pause() }
        }
        self.body = nil
    }

    func stop() {
        isStopped.store(true, ordering: .sequentiallyConsistent)
        wake()
    }

    func work() {
        var seen = 0
        while !isStopped.load(ordering: .acquiring) {
            seen = waitForJob(after: seen)
            // A job is entered by being counted first and looked at second; the caller closes it first and reads
            // the count second, so that it never returns while a worker is inside.
            users.add(1, ordering: .sequentiallyConsistent)
            if isOpen.load(ordering: .sequentiallyConsistent), let body { claim(body, parts) }
            users.subtract(1, ordering: .sequentiallyConsistent)
        }
    }

    private func claim(_ body: (Int) -> Void, _ parts: Int) {
        while true {
            let part = nextPart.add(1, ordering: .relaxed).oldValue
            guard part < parts else { return }
            body(part)
        }
    }

    private func wake() {
        pthread_mutex_lock(mutex)
        generation.add(1, ordering: .sequentiallyConsistent)
        if sleepers > 0 { pthread_cond_broadcast(condition) }
        pthread_mutex_unlock(mutex)
    }

    private func waitForJob(after seen: Int) -> Int {
        for _ in 0..<1500 {
            let now = generation.load(ordering: .acquiring)
            if now != seen { return now }
            pause()
        }
        pthread_mutex_lock(mutex)
        sleepers += 1
        while generation.load(ordering: .acquiring) == seen { pthread_cond_wait(condition, mutex) }
        sleepers -= 1
        pthread_mutex_unlock(mutex)
        return generation.load(ordering: .acquiring)
    }

    private func pause() { _ = isStopped.load(ordering: .relaxed) }
}

private func teamWorker(_ argument: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
    guard let argument else { return nil }
    Unmanaged<TeamState>.fromOpaque(argument).takeRetainedValue().work()
    return nil
}
