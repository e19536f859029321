/// Runs the cores' programs on the thread that simulates, one after the other and only when it is asked to.
final class SimulationExecutor: TaskExecutor, @unchecked Sendable {
    // Only the simulating thread makes tasks for this executor, resumes them and drains them.
    private var jobs: [UnownedJob] = []
    private var next = 0

    func enqueue(_ job: consuming ExecutorJob) { jobs.append(UnownedJob(job)) }

    /// Runs everything that can run.
    func drain() {
        guard next < jobs.count else { return }
        let executor = asUnownedTaskExecutor()
        while next < jobs.count {
            let job = jobs[next]
            next += 1
            job.runSynchronously(on: executor)
        }
        jobs.removeAll(keepingCapacity: true)
        next = 0
    }
}
