import EventLoop
import HybridModel
import Observability
import RPC
import Scheduling
import Serving
import StatePools
import WireProtocol

/// The hot loop of an attention instance: plans steps, has them computed, delivers tokens.
///
/// It lives on an event loop of its own, so that its kernels never delay the control loop. What a request's call does
/// with the state it receives or hands out happens on the control loop, in memory that nobody else touches while the
/// transfer is open.
public actor AttentionEngine {
    private struct Entry {
        var request: EngineRequest
        let events: AsyncStream<EngineEvent>.Continuation
    }

    nonisolated let loop: any Loop
    let telemetry: Telemetry
    private let stepSeconds: Histogram
    private let computation: any StepComputation
    private let chain: ServiceChain
    private var scheduler: Ranks
    private var entries: [UInt64: Entry] = [:]
    private var nextID: UInt64 = 1
    private var isStepping = false
    private var expiry: (any LoopTimer)?
    private var gathering: (any LoopTimer)?
    private var gatherLimit: UInt64?
    private var steps: Int64 = 0
    /// Layers that were run.
    private var layers: UInt64 = 0
    private var rows: Int64 = 0
    private var stepTime = Stopwatch()

    /// The engine runs on its loop.
    public nonisolated var unownedExecutor: UnownedSerialExecutor { loop.asUnownedSerialExecutor() }

    init(
        loop: any Loop, computation: any StepComputation, chain: ServiceChain, scheduler: Ranks,
        telemetry: Telemetry
    ) {
        self.chain = chain
        self.telemetry = telemetry
        stepSeconds = telemetry.metrics.histogram(
            "ironling_attention_step_seconds", help: "Time of a step of the layer loop.",
            bounds: Histogram.exponentialBounds(start: 0.00025, factor: 2, count: 16))
        self.loop = loop
        self.computation = computation
        self.scheduler = scheduler
    }

    // MARK: Services that are called

    /// Those that cannot be.
    func missing() -> [StatusReply.Missing] { chain.missing }

    /// Returns when all can be; throws when one cannot for a moment.
    func waitForChain() async throws(RPCError) { try await chain.waitReady() }

    // MARK: Requests

    /// Queues a request; what happens to it arrives as events. Returns its number.
    func submit(
        _ request: EngineRequest, events: AsyncStream<EngineEvent>.Continuation
    ) throws(RPCError) -> UInt64 {
        let vocabulary = computation.vocabularySize
        if let id = request.history.first(where: { Int($0) >= vocabulary }) {
            throw RPCError(.invalidArgument, "prompt holds token id \(id), the vocabulary has \(vocabulary)")
        }
        let total = request.promptCount + request.maximumTokens
        let limit = MessageLimits.penalisedTokens
        guard !request.sampling.hasPenalties || total <= limit else {
            throw RPCError(
                .limitExceeded,
                "with penalties prompt and max_tokens together are \(limit) tokens at most, not \(total)")
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
    func received(_ id: UInt64, transfer: Hold, token: Token?) -> Bool {
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

    /// Layers that were run, for whichever requests; nil when this one is not here.
    func work(of id: UInt64) -> UInt64? { entries[id] == nil ? nil : layers }

    func tell(_ id: UInt64, _ event: EngineEvent) { entries[id]?.events.yield(event) }

    func deliver(_ item: Token, to id: UInt64) {
        entries[id]?.request.history.append(item.id)
        guard let request = entries[id]?.request else { return }
        if request.role != .prefill, request.generated == 1 + request.replayCount {
            telemetry.requests.enter(.decode, request.number)
        }
        telemetry.requests.token(request.number)
        tell(id, .token(item))
        if request.role != .prefill, let end = request.end { self.end(id, .finished(end)) }
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
                    telemetry.requests.enter(request.role == .decode ? .receiving : .prefill, request.number)
                }
                tell(id, .admitted(reservation, transfer: transfer))
            case .expired(let id):
                end(id, .failed(RPCError(.notAccepted, "the request waited too long for memory")))
            case .promptComplete(let id):
                if let request = request(id) { telemetry.requests.enter(.handingOff, request.number) }
                completePrompt(id)
            case .preempted(let id):
                if let request = request(id) { telemetry.requests.enter(.queued, request.number) }
            }
        }
    }

    /// The prompt's call ends when all of the state has left.
    private func completePrompt(_ id: UInt64) {
        let wait = computation.handOutMicroseconds(of: id, now: loop.now)
        guard wait > 0 else { return tell(id, .promptComplete) }
        loop.schedule(afterMicroseconds: wait) { [weak self] in
            guard let self else { return }
            Task.immediate(executorPreference: loop) { await self.tell(id, .promptComplete) }
        }
    }

    /// A layer's state is final for the step's tokens as soon as its attention has run; it travels while the experts
    /// and the later layers compute. A recurrent state is final only after the last chunk.
    func handOut(_ plan: [StepEntry], _ layer: Int, _ place: LayerPlace) {
        layers &+= 1
        for entry in plan {
            guard let request = request(entry.id), request.role == .prefill else { continue }
            var segment = StateSegment(
                kind: .latents, layer: UInt32(layer), first: UInt32(entry.positions.lowerBound),
                count: UInt32(entry.positions.count), generation: request.generation)
            if case .linear = place {
                guard entry.positions.upperBound == request.promptCount else { continue }
                (segment.kind, segment.first, segment.count) = (.state, 0, UInt32(request.promptCount))
            }
            tell(entry.id, .segment(segment))
        }
    }

    // MARK: Steps

    /// Steps until there is nothing to compute. Called whenever that may have changed.
    private func wake() {
        if let limit = gatherLimit { return gather(until: limit) }
        guard !isStepping else { return }
        isStepping = true
        expiry?.cancel()
        guard scheduler.limits.gatherMicroseconds > 0 else {
            Task(executorPreference: loop) { await self.runSteps() }
            return
        }
        gather(until: loop.now + scheduler.limits.gatherLimitMicroseconds)
    }

    /// Waits for more to come before the first step, until `limit` at the latest.
    private func gather(until limit: UInt64) {
        gatherLimit = limit
        gathering?.cancel()
        let now = loop.now
        let wait = min(scheduler.limits.gatherMicroseconds, limit > now ? limit - now : 0)
        gathering = loop.schedule(afterMicroseconds: wait) { [weak self] in
            guard let self else { return }
            Task.immediate(executorPreference: loop) { await self.endGathering() }
        }
    }

    private func endGathering() async {
        gatherLimit = nil
        gathering = nil
        await runSteps()
    }

    private func runSteps() async {
        var continues = false
        while true {
            let started = Stopwatch.now
            let plan = scheduler.planStep(now: loop.now)
            tellEvents()
            guard !plan.isEmpty else { break }
            do throws(RPCError) { try await compute(plan, continues: continues) } catch {
                let lost = scheduler.abandon(plan)
                // A service that could not be reached for as long as its calls may take is not waited for again: another
                // instance may reach it, and who asks should hear of it.
                let isAway = error.code == .unavailable
                for id in isAway ? plan.entries.map(\.id) : lost { end(id, .failed(error)) }
            }
            tellEvents()
            stepTime.add(since: started)
            stepSeconds.observe(Double(Stopwatch.now - started) / 1e9)
            continues = true
        }
        isStepping = false
        guard let next = scheduler.nextExpiry else { return }
        expiry = loop.schedule(afterMicroseconds: next > loop.now ? next - loop.now : 1) { [weak self] in
            guard let self else { return }
            Task(executorPreference: loop) { await self.wake() }
        }
    }

    private func compute(_ plan: Step, continues: Bool) async throws(RPCError) {
        var trace = StepTrace(telemetry.spans, step: steps + 1, plan.entries, request)
        let outcome = try await computation.run(plan, continues: continues, for: self, &trace)
        trace.end(rows: outcome.rows)
        steps += 1
        rows += Int64(outcome.rows)
        scheduler.complete(plan, microseconds: outcome.microseconds)
        for (id, outcome) in outcome.sampled {
            switch outcome {
            case .token(let item): deliver(item, to: id)
            case .refused(let failure): end(id, .failed(RPCError(failure.code, failure.message, link: .sampler)))
            }
        }
    }

    // MARK: Figures

    /// What requests may be placed on.
    func capacity() -> Capacity {
        let load = scheduler.load
        return Capacity(
            requests: scheduler.slotCount, tokens: scheduler.pageCount * Block.tokens,
            requestTokens: scheduler.pageCount / max(1, scheduler.rankCount) * Block.tokens,
            quarantinedRequests: load.slots[.quarantined], quarantinedTokens: load.pages[.quarantined] * Block.tokens)
    }

    /// Counters for the status call.
    func counters() -> [String: Int64] {
        let load = scheduler.load
        var counters: [String: Int64] = [
            "requests_running": Int64(scheduler.runningCount), "requests_waiting": Int64(load.waiting),
            "requests_receiving": Int64(load.receiving), "requests_handing_out": Int64(load.handingOut),
            "preemptions": Int64(load.preemptions), "slots_in_use": Int64(scheduler.slotCount - load.slots[.free]),
            "slots": Int64(scheduler.slotCount), "pages_in_use": Int64(scheduler.pageCount - load.pages[.free]),
            "pages": Int64(scheduler.pageCount), "dp_rank": Int64(scheduler.firstRank),
            "dp_ranks": Int64(scheduler.rankCount), "steps": steps, "rows": rows,
            "step_nanoseconds": stepTime.nanoseconds,
        ]
        counters.merge(computation.counters) { $1 }
        for unit in UnitState.allCases {
            counters["slots_\(unit)"] = Int64(load.slots[unit])
            counters["pages_\(unit)"] = Int64(load.pages[unit])
        }
        return counters
    }
}
