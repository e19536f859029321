import EventLoop
import HybridModel
import Observability
import RPC
import Scheduling
import StatePools
import WireProtocol

/// The hot loop of an attention instance: plans steps, runs the layers, calls experts and sampler, delivers tokens.
///
/// It lives on an event loop of its own, so that its kernels never delay the control loop. What a request's call does
/// with the state it receives or hands out happens on the control loop, in memory that nobody else touches while the
/// transfer is open.
public actor AttentionEngine {
    private struct Entry {
        var request: EngineRequest
        let events: AsyncStream<EngineEvent>.Continuation
    }

    /// Words of all rows of one sampler call; a frame has room for 262144.
    static let sampleWords = 250_000

    nonisolated let loop: any Loop
    let model: AttentionModel
    let state: StateMemory
    let experts: ExpertsDispatcher
    let sampler: ReplicaSet
    let telemetry: Telemetry
    private let stepSeconds: Histogram
    var scheduler: BatchScheduler
    private var entries: [UInt64: Entry] = [:]
    private var nextID: UInt64 = 1
    private var isStepping = false
    private var expiry: (any LoopTimer)?
    var steps: Int64 = 0
    var rows: Int64 = 0
    private var stepTime = Stopwatch()
    var kernelTime = Stopwatch()

    /// The engine runs on its loop.
    public nonisolated var unownedExecutor: UnownedSerialExecutor { loop.asUnownedSerialExecutor() }

    init(
        loop: any Loop, model: AttentionModel, state: StateMemory, experts: ExpertsDispatcher, sampler: ReplicaSet,
        scheduler: BatchScheduler, telemetry: Telemetry
    ) {
        self.telemetry = telemetry
        stepSeconds = telemetry.metrics.histogram(
            "ironling_attention_step_seconds", help: "Time of a step of the layer loop.",
            bounds: Histogram.exponentialBounds(start: 0.00025, factor: 2, count: 16))
        self.loop = loop
        self.model = model
        self.state = state
        self.experts = experts
        self.sampler = sampler
        self.scheduler = scheduler
    }

    // MARK: Requests

    /// Queues a request; what happens to it arrives as events. Returns its number.
    func submit(
        _ request: EngineRequest, events: AsyncStream<EngineEvent>.Continuation
    ) throws(RPCError) -> UInt64 {
        let vocabulary = model.configuration.vocabularySize
        if let id = request.history.first(where: { Int($0) >= vocabulary }) {
            throw RPCError(.invalidArgument, "prompt holds token id \(id), the vocabulary has \(vocabulary)")
        }
        let total = request.promptCount + request.maximumTokens
        guard !request.sampling.hasPenalties || total <= Self.sampleWords - 16 else {
            throw RPCError(
                .limitExceeded,
                "with penalties prompt and max_tokens together are \(Self.sampleWords - 16) tokens at most, not \(total)"
            )
        }
        let id = nextID
        nextID += 1
        entries[id] = Entry(request: request, events: events)
        if case .rejected(let refusal) = scheduler.submit(request.scheduled(id: id), now: loop.now) {
            entries[id] = nil
            throw Self.error(refusal)
        }
        tellEvents()
        wake()
        return id
    }

    private static func error(_ refusal: AdmissionRefusal) -> RPCError {
        let code: ErrorCode =
            switch refusal {
            case .queueFull: .notAccepted
            case .neverFits: .limitExceeded
            case .duplicate, .invalid: .invalidArgument
            }
        return RPCError(code, refusal.description)
    }

    /// Forgets a request. Memory that a step or a transfer still reaches is freed when that is over. Harmless when the
    /// request is done.
    func forget(_ id: UInt64) {
        end(id, .failed(RPCError(.cancelled, "the request was cancelled")))
        wake()
    }

    /// The prompt's state has been written in full, with the token that was sampled after it. False when the request is
    /// gone and what arrived must be thrown away.
    func received(_ id: UInt64, transfer: Hold, token: TokensItem?) -> Bool {
        guard scheduler.received(id: id, transfer: transfer), let request = entries[id]?.request else { return false }
        telemetry.requests.enter(.decode, request.number)
        if let token, request.generated == 0 { deliver(token, to: id) }
        wake()
        return true
    }

    /// Nothing is read or written through the transfer any more.
    func endTransfer(_ transfer: Hold) {
        scheduler.endTransfer(transfer)
        wake()
    }

    func request(_ id: UInt64) -> EngineRequest? { entries[id]?.request }

    func tell(_ id: UInt64, _ event: EngineEvent) { entries[id]?.events.yield(event) }

    func deliver(_ item: TokensItem, to id: UInt64) {
        entries[id]?.request.history.append(item.token.id)
        guard let request = entries[id]?.request else { return }
        if request.role != .prefillOnly, request.generated == 1 + request.replayCount {
            telemetry.requests.enter(.decode, request.number)
        }
        telemetry.requests.token(request.number)
        tell(id, .token(item))
        if request.role != .prefillOnly, let end = request.end { self.end(id, .finished(end)) }
    }

    func end(_ id: UInt64, _ event: EngineEvent) {
        guard let entry = entries.removeValue(forKey: id) else { return }
        scheduler.remove(id: id)
        telemetry.requests.enter(.streaming, entry.request.number)
        entry.events.yield(event)
        entry.events.finish()
    }

    /// Passes on what the scheduler decided outside of steps.
    func tellEvents() {
        for event in scheduler.takeEvents() {
            switch event {
            case .admitted(let id, let reservation, let transfer):
                if let request = request(id) {
                    telemetry.requests.enter(request.role == .decodeOnly ? .receiving : .prefill, request.number)
                }
                tell(id, .admitted(reservation, transfer: transfer))
            case .expired(let id):
                end(id, .failed(RPCError(.notAccepted, "the request waited too long for memory")))
            case .promptComplete(let id):
                if let request = request(id) { telemetry.requests.enter(.handingOff, request.number) }
                tell(id, .promptComplete)
            case .preempted(let id):
                if let request = request(id) { telemetry.requests.enter(.queued, request.number) }
            }
        }
    }

    // MARK: Steps

    /// Steps until there is nothing to compute. Called whenever that may have changed.
    private func wake() {
        guard !isStepping else { return }
        isStepping = true
        expiry?.cancel()
        Task(executorPreference: loop) { await self.runSteps() }
    }

    private func runSteps() async {
        while true {
            let started = Stopwatch.now
            let plan = scheduler.planStep(now: loop.now)
            tellEvents()
            guard !plan.isEmpty else { break }
            do throws(RPCError) { try await step(plan) } catch {
                for id in scheduler.abandon(plan) { end(id, .failed(error)) }
            }
            tellEvents()
            stepTime.add(since: started)
            stepSeconds.observe(Double(Stopwatch.now - started) / 1e9)
        }
        isStepping = false
        guard let next = scheduler.nextExpiry else { return }
        expiry = loop.schedule(afterMicroseconds: next > loop.now ? next - loop.now : 1) { [weak self] in
            guard let self else { return }
            Task(executorPreference: loop) { await self.wake() }
        }
    }

    // MARK: Figures

    /// Counters for the status call.
    func counters() -> [String: Int64] {
        let load = scheduler.load
        var counters: [String: Int64] = [
            "requests_running": Int64(scheduler.runningCount), "requests_waiting": Int64(load.waiting),
            "requests_receiving": Int64(load.receiving), "requests_handing_out": Int64(load.handingOut),
            "preemptions": Int64(load.preemptions), "slots_in_use": Int64(scheduler.pools.slotsInUse),
            "slots": Int64(scheduler.pools.slotCount), "pages_in_use": Int64(scheduler.pools.pagesInUse),
            "pages": Int64(scheduler.pools.pageCount), "dp_rank": Int64(scheduler.pools.dpRank), "steps": steps,
            "rows": rows, "step_nanoseconds": stepTime.nanoseconds, "kernel_nanoseconds": kernelTime.nanoseconds,
        ]
        for (name, value) in experts.counters { counters["experts_\(name)"] = value }
        for (name, value) in sampler.counters { counters["sampler_\(name)"] = value }
        for unit in UnitState.allCases {
            counters["slots_\(unit)"] = Int64(load.slots[unit])
            counters["pages_\(unit)"] = Int64(load.pages[unit])
        }
        return counters
    }
}
