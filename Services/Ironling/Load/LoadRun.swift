import EventLoop
import LoadTesting

/// Sends a workload when its controller says so and collects what was measured.
final class LoadRun: Sendable {
    struct State {
        fileprivate var controller: LoadController
        fileprivate var tasks: [Int: Task<Void, Never>] = [:]
        fileprivate var timer: (any LoopTimer)?
        /// When the load began and, once it is over, when it ended; microseconds since the meter's epoch.
        fileprivate(set) var start: UInt64 = 0
        fileprivate(set) var end: UInt64 = 0
        /// Requests that ended.
        fileprivate(set) var records: [RequestRecord] = []
        /// True once it was ended before its time.
        fileprivate(set) var isCutOff = false
        /// How it stands.
        var progress: LoadProgress
    }

    private let loop: any Loop
    private let meter: RequestMeter
    private let plan: LoadPlan
    private let waiters = Waiters()
    let state: LoopBound<State>

    init(_ plan: LoadPlan, meter: RequestMeter) {
        loop = meter.loop
        self.meter = meter
        self.plan = plan
        let controller = LoadController(due: plan.due, limit: plan.limit)
        let progress = LoadProgress(total: plan.workload.count)
        state = LoopBound(State(controller: controller, progress: progress), on: meter.loop)
    }

    /// Requests in flight.
    var inFlight: Int { state.controller.inFlight }

    /// Runs the load; returns when every request has ended.
    func run() async {
        state.start = meter.now
        let limit = plan.maxDurationMicroseconds.map { limit in
            loop.schedule(afterMicroseconds: limit) { [weak self] in self?.cutOff() }
        }
        pump()
        await waiters.wait { !state.controller.isDone }
        limit?.cancel()
        state.timer?.cancel()
        state.end = meter.now
    }

    /// Sends nothing more and gives up what is in flight.
    func cutOff() {
        state.isCutOff = true
        state.controller.stop()
        for (_, task) in state.tasks.sorted(by: { $0.key < $1.key }) { task.cancel() }
        waiters.wake()
    }

    private func pump() {
        state.timer?.cancel()
        let step = state.controller.advance(to: meter.now - state.start)
        for index in step.send { launch(index) }
        guard let wakeAt = step.wakeAt else { return }
        let now = meter.now - state.start
        state.timer = loop.schedule(afterMicroseconds: wakeAt > now ? wakeAt - now : 0) { [weak self] in self?.pump() }
    }

    private func launch(_ index: Int) {
        state.tasks[index] = Task(executorPreference: loop) { [self] in
            let request = plan.workload.request(at: index)
            let record = await meter.measure(
                request, index: index, due: state.start + state.controller.due[index],
                cancelAfter: plan.cancellation.tokens(index: index, outputTokens: request.outputTokens)
            ) { state.progress.received(tokens: $0) }
            ended(record)
        }
    }

    private func ended(_ record: RequestRecord) {
        state.records.append(record)
        state.progress.ended(record)
        state.tasks[record.index] = nil
        state.controller.finished()
        pump()
        if state.controller.isDone { waiters.wake() }
    }
}
