import EventLoop
import LoadTesting

/// Decode streams that are kept running beside a load: each is asked for again as soon as it ends.
final class ProbeStreams: Sendable {
    private struct State {
        var tasks: [Task<Void, Never>] = []
        var tokens: [Int]
        var running = 0
        var records: [RequestRecord] = []
    }

    /// Failures after which a stream is not asked for again.
    private static let patience = 10
    private static let pauseMicroseconds: UInt64 = 200_000
    /// Tokens that every stream must have given before it counts as steady.
    private static let steadyTokens = 33

    private let loop: any Loop
    private let meter: RequestMeter
    private let workload: any Workload
    private let waiters = Waiters()
    private let state: LoopBound<State>
    /// Requests that ended.
    var records: [RequestRecord] { state.records }

    /// As many streams as `workload` has requests.
    init(_ workload: any Workload, meter: RequestMeter) {
        loop = meter.loop
        self.meter = meter
        self.workload = workload
        state = LoopBound(State(tokens: Array(repeating: 0, count: workload.count)), on: meter.loop)
    }

    /// Starts the streams; returns when all are steady, or none is left.
    func start() async {
        for index in 0..<workload.count {
            state.running += 1
            state.tasks.append(Task(executorPreference: loop) { [self] in await keep(index) })
        }
        await waiters.wait { state.running > 0 && state.tokens.contains { $0 < Self.steadyTokens } }
    }

    /// Ends the streams and waits for them.
    func stop() async {
        for task in state.tasks { task.cancel() }
        await waiters.wait { state.running > 0 }
    }

    private func keep(_ index: Int) async {
        var failures = 0
        while !Task.isCancelled, failures < Self.patience {
            let record = await meter.measure(
                workload.request(at: index), index: index, due: meter.now, cancelAfter: nil
            ) { count in
                state.tokens[index] += count
                waiters.wake()
            }
            state.records.append(record)
            guard case .failed = record.outcome else { continue }
            failures += 1
            await withCheckedContinuation { continuation in
                loop.schedule(afterMicroseconds: Self.pauseMicroseconds) { continuation.resume() }
            }
        }
        state.running -= 1
        state.tokens[index] = max(state.tokens[index], Self.steadyTokens)
        waiters.wake()
    }
}
