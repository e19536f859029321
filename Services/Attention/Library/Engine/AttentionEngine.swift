import EngineCore
import EventLoop
import HybridModel
import Observability
import RPC
import Scheduling
import Serving
import StatePools
import WireProtocol

/// The shell of an instance's `Engine`: has its steps computed and tells its calls what becomes of their requests.
///
/// It lives on an event loop of its own, so that its kernels never delay the control loop. What a request's call does
/// with the state it receives or hands out happens on the control loop, in memory that nobody else touches while the
/// transfer is open.
public actor AttentionEngine {
    /// What waits for a request.
    struct Call: Sendable {
        let events: AsyncStream<EngineEvent>.Continuation
        let trace: TraceContext
        /// Its number among the live requests.
        let number: UInt64
        /// The decode instance's generation, for the segments of a prompt that is handed out.
        let generation: UInt64
        /// First token whose latents the decode instance wants.
        let first: Int
        let part: Part
        var hasTokens = false
    }

    /// Tokens whose latents travel in one segment, at most.
    private static let segmentTokens = 16384

    nonisolated let loop: any Loop
    let telemetry: Telemetry
    private let stepSeconds: Histogram
    private let computation: any StepComputation
    private let chain: ServiceChain
    private var core: Engine<RPCError>
    private var calls: [UInt64: Call] = [:]
    private var nextID: UInt64 = 1
    private var timer: (any LoopTimer)?
    /// Layers that were run.
    private var layers: UInt64 = 0
    private var stepTime = Stopwatch()

    /// The engine runs on its loop.
    public nonisolated var unownedExecutor: UnownedSerialExecutor { loop.asUnownedSerialExecutor() }

    init(
        loop: any Loop, computation: sending any StepComputation, chain: ServiceChain, ranks: Ranks,
        telemetry: Telemetry
    ) {
        self.chain = chain
        self.telemetry = telemetry
        stepSeconds = telemetry.metrics.histogram(
            "ironling_attention_step_seconds", help: "Time of a step of the layer loop.",
            bounds: Histogram.exponentialBounds(start: 0.00025, factor: 2, count: 16))
        self.loop = loop
        self.computation = computation
        core = Engine(ranks: ranks)
    }

    // MARK: Services that are called

    /// Those that cannot be.
    func missing() -> [StatusReply.Missing] { chain.missing }

    /// Returns when all can be; throws when one cannot for a moment.
    func waitForChain() async throws(RPCError) { try await chain.waitReady() }

    // MARK: Requests

    /// Queues a request; what happens to it arrives as events. Returns its number.
    ///
    /// - generation: the decode instance's, where the prompt's state is handed out.
    /// - first: the first token whose latents it wants.
    /// - Throws: when the request asks for what no instance of this model can do, or is not taken in.
    func submit(
        _ request: Request, trace: TraceContext, number: UInt64, generation: UInt64 = 0, first: Int = 0,
        events: AsyncStream<EngineEvent>.Continuation
    ) throws(RPCError) -> UInt64 {
        try check(request)
        let id = nextID
        nextID += 1
        var request = request
        request.id = id
        let actions = core.handle(.submit(request), now: loop.now)
        if case .tell(id, .ended(.refused(let refusal)))? = actions.first {
            perform(actions)
            throw Self.error(refusal)
        }
        calls[id] = Call(
            events: events, trace: trace, number: number, generation: generation, first: first,
            part: request.part)
        perform(actions)
        return id
    }

    private func check(_ request: Request) throws(RPCError) {
        let vocabulary = computation.vocabularySize
        if let id = request.tokens.first(where: { Int($0) >= vocabulary }) {
            throw RPCError(.invalidArgument, "prompt holds token id \(id), the vocabulary has \(vocabulary)")
        }
        let limit = MessageLimits.penalisedTokens
        guard !request.sampling.hasPenalties || request.mostTokens <= limit else {
            throw RPCError(
                .limitExceeded,
                "with penalties prompt and max_tokens together are \(limit) tokens at most, not \(request.mostTokens)")
        }
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
    func forget(_ id: UInt64) { perform(core.handle(.forget(id), now: loop.now)) }

    /// Forgets all that is kept of requests.
    func flush() { perform(core.handle(.flush, now: loop.now)) }

    /// The prompt's state has been written in full, with the token that was sampled after it. What came for a request that
    /// is gone is thrown away.
    func received(_ id: UInt64, transfer: Hold, token: Token?, cached: Int) {
        perform(core.handle(.received(id, transfer: transfer, token, cached: cached), now: loop.now))
    }

    /// Nothing is read or written through the transfer any more.
    func endTransfer(_ transfer: Hold) { perform(core.handle(.transferEnded(transfer), now: loop.now)) }

    /// A request that is here, with the tokens that are known.
    func request(_ id: UInt64) -> Request? { core.request(id) }

    /// What waits for a request that is here.
    func call(_ id: UInt64) -> Call? { calls[id] }

    /// Layers that were run, for whichever requests; nil when this one is not here.
    func work(of id: UInt64) -> UInt64? { calls[id] == nil ? nil : layers }

    /// A layer's state is final for the step's tokens as soon as its attention has run; it travels while the experts
    /// and the later layers compute. A recurrent state is final only after the last chunk.
    func handOut(_ plan: [StepEntry], _ layer: Int, _ place: LayerPlace) {
        layers &+= 1
        for entry in plan {
            guard let call = calls[entry.id], call.part == .prefill, let request = core.request(entry.id)
            else { continue }
            switch place {
            case .latent:
                // What was kept of the prompt goes with the first of it that is computed.
                let isFirst = entry.positions.lowerBound == request.cachedCount
                let first = max(call.first, isFirst ? 0 : entry.positions.lowerBound)
                for start in stride(from: first, to: entry.positions.upperBound, by: Self.segmentTokens) {
                    let end = min(start + Self.segmentTokens, entry.positions.upperBound)
                    call.events.yield(.segment(.latents(layer: layer, tokens: start..<end)))
                }
            case .linear where entry.positions.upperBound == request.promptCount:
                call.events.yield(.segment(.state(layer: layer)))
            case .linear: break
            }
        }
    }

    // MARK: Doing what the core says

    /// Does all but compute, and returns what is to be computed.
    private func perform(returning actions: [Engine<RPCError>.Action]) -> (step: Step, continues: Bool)? {
        var next: (Step, Bool)?
        for action in actions {
            switch action {
            case .compute(let step, let continues): next = (step, continues)
            case .wake(let time): wake(at: time)
            case .tell(let id, let notice): tell(id, notice)
            }
        }
        return next
    }

    private func perform(_ actions: [Engine<RPCError>.Action]) {
        let next = perform(returning: actions)
        precondition(next == nil, "a step begins when it is due or another ends, and this was neither")
    }

    private func wake(at time: UInt64?) {
        timer?.cancel()
        timer = nil
        guard let time else { return }
        let now = loop.now
        guard time > now else {
            Task(executorPreference: loop) { await self.due() }
            return
        }
        timer = loop.schedule(afterMicroseconds: time - now) { [weak self] in
            guard let self else { return }
            Task.immediate(executorPreference: loop) { await self.due() }
        }
    }

    private func tell(_ id: UInt64, _ notice: Engine<RPCError>.Notice) {
        guard let call = calls[id] else { return }
        let requests = telemetry.requests
        switch notice {
        case .admitted(let reservation, let transfer):
            requests.enter(call.part == .decode ? .receiving : .prefill, call.number)
            call.events.yield(.admitted(reservation, transfer: transfer))
        case .decoding: requests.enter(.decode, call.number)
        case .token(let token, let cached):
            if !call.hasTokens, call.part != .prefill { requests.enter(.decode, call.number) }
            calls[id]?.hasTokens = true
            requests.token(call.number)
            call.events.yield(.token(token, cached: cached))
        case .preempted: requests.enter(.queued, call.number)
        case .promptComplete:
            requests.enter(.handingOff, call.number)
            completePrompt(id, call)
        case .ended(let ending):
            calls[id] = nil
            requests.enter(.streaming, call.number)
            call.events.yield(Self.event(ending))
            call.events.finish()
        }
    }

    private static func event(_ ending: Engine<RPCError>.Ending) -> EngineEvent {
        switch ending {
        case .finished(let end): .finished(end)
        case .refused(let refusal): .failed(error(refusal))
        case .waitedTooLong: .failed(RPCError(.notAccepted, "the request waited too long for memory"))
        case .forgotten: .failed(RPCError(.cancelled, "the request was cancelled"))
        case .failed(let error): .failed(error)
        }
    }

    /// The prompt's call ends when all of the state has left.
    private func completePrompt(_ id: UInt64, _ call: Call) {
        let wait = computation.handOutMicroseconds(of: id, now: loop.now)
        guard wait > 0 else {
            call.events.yield(.promptComplete)
            return
        }
        loop.schedule(afterMicroseconds: wait) { call.events.yield(.promptComplete) }
    }

    // MARK: Steps

    /// The time that the core asked for has come. Steps until there is nothing to compute.
    private func due() async {
        var next = perform(returning: core.handle(.due, now: loop.now))
        while let (step, continues) = next {
            let started = Stopwatch.now
            let event: Engine<RPCError>.Event
            do throws(RPCError) {
                event = .stepDone(try await compute(step, continues: continues))
            } catch {
                // A service that could not be reached for as long as its calls may take is not waited for again.
                event = .stepFailed(error, isAway: error.code == .unavailable)
            }
            next = perform(returning: core.handle(event, now: loop.now))
            stepTime.add(since: started)
            stepSeconds.observe(Double(Stopwatch.now - started) / 1e9)
        }
    }

    private func compute(_ step: Step, continues: Bool) async throws(RPCError) -> Engine<RPCError>.Outcome {
        var trace = StepTrace(telemetry.spans, step: core.steps + 1, step.entries) { calls[$0] }
        let outcome = try await computation.run(step, continues: continues, for: self, &trace)
        trace.end(rows: outcome.rows)
        return outcome
    }

    // MARK: Figures

    /// What placement may count on.
    func capacity() -> Capacity { core.ranks.capacity }

    /// Counters for the status call.
    func counters() -> [String: Int64] {
        let (ranks, load) = (core.ranks, core.ranks.load)
        var counters: [String: Int64] = [
            "requests_running": Int64(ranks.runningCount), "requests_waiting": Int64(load.waiting),
            "requests_receiving": Int64(load.receiving), "requests_handing_out": Int64(load.handingOut),
            "preemptions": Int64(load.preemptions), "slots_in_use": Int64(load.slotsInUse),
            "slots": Int64(ranks.slotCount), "pages_in_use": Int64(load.pagesInUse),
            "pages": Int64(ranks.pageCount), "dp_rank": Int64(ranks.firstRank),
            "dp_ranks": Int64(ranks.rankCount), "steps": core.steps, "rows": core.rows,
            "step_nanoseconds": stepTime.nanoseconds, "prefix_hit_tokens": Int64(load.prefixHitTokens),
            "prefix_snapshots": Int64(load.prefixSnapshots), "prefix_evictions": Int64(load.prefixEvictions),
        ]
        counters.merge(computation.counters) { $1 }
        for unit in UnitState.allCases {
            counters["slots_\(unit)"] = Int64(load.slots[unit])
            counters["pages_\(unit)"] = Int64(load.pages[unit])
        }
        return counters
    }
}
