import EventLoop
import LoadTesting

/// Sends a workload when its controller says so and collects what was measured. Confined to its loop.
final class LoadRun: @unchecked Sendable {
    private let loop: any Loop
    private let meter: RequestMeter
    private let plan: LoadPlan
    private var controller: LoadController
    private var tasks: [Int: Task<Void, Never>] = [:]
    private var timer: (any LoopTimer)?
    private let waiters = Waiters()
    /// When the load began and, once it is over, when it ended; microseconds since the meter's epoch.
    private(set) var start: UInt64 = 0
    private(set) var end: UInt64 = 0
    /// Requests that ended.
    private(set) var records: [RequestRecord] = []
    /// True once it was ended before its time.
    private(set) var isCutOff = false
    /// How it stands.
    var progress: LoadProgress

    init(_ plan: LoadPlan, meter: RequestMeter) {
        loop = meter.loop
        self.meter = meter
        self.plan = plan
        controller = LoadController(due: plan.due, limit: plan.limit)
        progress = LoadProgress(total: plan.workload.count)
    }

    /// Requests in flight.
    var inFlight: Int { controller.inFlight }

    /// Runs the load; returns when every request has ended.
    func run() async {
        start = meter.now
        let limit = plan.maxDurationMicroseconds.map { limit in
            loop.schedule(afterMicroseconds: limit) { [weak self] in self?.cutOff() }
        }
        pump()
        await waiters.wait { !controller.isDone }
        limit?.cancel()
        timer?.cancel()
        end = meter.now
    }

    /// Sends nothing more and gives up what is in flight.
    func cutOff() {
        isCutOff = true
        controller.stop()
        for (_, task) in tasks.sorted(by: { $0.key < $1.key }) { task.cancel() }
        waiters.wake()
    }

    private func pump() {
        timer?.cancel()
        let step = controller.advance(to: meter.now - start)
        for index in step.send { launch(index) }
        guard let wakeAt = step.wakeAt else { return }
        let now = meter.now - start
        timer = loop.schedule(afterMicroseconds: wakeAt > now ? wakeAt - now : 0) { [weak self] in self?.pump() }
    }

    private func launch(_ index: Int) {
        tasks[index] = Task(executorPreference: loop) { [self] in
            let request = plan.workload.request(at: index)
            let record = await meter.measure(
                request, index: index, due: start + controller.due[index],
                cancelAfter: plan.cancellation.tokens(index: index, outputTokens: request.outputTokens)
            ) { progress.received(tokens: $0) }
            ended(record)
        }
    }

    private func ended(_ record: RequestRecord) {
        records.append(record)
        progress.ended(record)
        tasks[record.index] = nil
        controller.finished()
        pump()
        if controller.isDone { waiters.wake() }
    }
}
