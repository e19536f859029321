import EventLoop
import LoadTesting

/// Decode streams that are kept running beside a load: each is asked for again as soon as it ends. Confined to its
/// loop.
final class ProbeStreams: @unchecked Sendable {
    /// Failures after which a stream is not asked for again.
    private static let patience = 10
    private static let pauseMicroseconds: UInt64 = 200_000
    /// Tokens that every stream must have given before it counts as steady.
    private static let steadyTokens = 33

    private let loop: any Loop
    private let meter: RequestMeter
    private let workload: any Workload
    private var tasks: [Task<Void, Never>] = []
    private var tokens: [Int]
    private var running = 0
    private let waiters = Waiters()
    /// Requests that ended.
    private(set) var records: [RequestRecord] = []

    /// As many streams as `workload` has requests.
    init(_ workload: any Workload, meter: RequestMeter) {
        loop = meter.loop
        self.meter = meter
        self.workload = workload
        tokens = Array(repeating: 0, count: workload.count)
    }

    /// Starts the streams; returns when all are steady, or none is left.
    func start() async {
        for index in 0..<workload.count {
            running += 1
            tasks.append(Task(executorPreference: loop) { [self] in await keep(index) })
        }
        await waiters.wait { running > 0 && tokens.contains { $0 < Self.steadyTokens } }
    }

    /// Ends the streams and waits for them.
    func stop() async {
        for task in tasks { task.cancel() }
        await waiters.wait { running > 0 }
    }

    private func keep(_ index: Int) async {
        var failures = 0
        while !Task.isCancelled, failures < Self.patience {
            let record = await meter.measure(
                workload.request(at: index), index: index, due: meter.now, cancelAfter: nil
            ) { count in
                tokens[index] += count
                waiters.wake()
            }
            records.append(record)
            guard case .failed = record.outcome else { continue }
            failures += 1
            await withCheckedContinuation { continuation in
                loop.schedule(afterMicroseconds: Self.pauseMicroseconds) { continuation.resume() }
            }
        }
        running -= 1
        tokens[index] = max(tokens[index], Self.steadyTokens)
        waiters.wake()
    }
}
