import Synchronization

/// Runs the cores' programs on the thread that simulates, one after the other and only when it is asked to.
final class SimulationExecutor: TaskExecutor {
    private struct Queue {
        var jobs: [UnownedJob] = []
        var next = 0

        mutating func takeFirst() -> UnownedJob? {
            guard next < jobs.count else {
                jobs.removeAll(keepingCapacity: true)
                next = 0
                return nil
            }
            next += 1
            return jobs[next - 1]
        }
    }

    private let queue = Mutex(Queue())

    func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        queue.withLock { $0.jobs.append(job) }
    }

    /// Runs everything that can run.
    func drain() {
        let executor = asUnownedTaskExecutor()
        while let job = queue.withLock({ $0.takeFirst() }) { job.runSynchronously(on: executor) }
    }
}
