import Checkpoint
import EventLoop
import HybridModel
import Observability
import RPC
import Scheduling
import StatePools
import WireProtocol

/// The hot loop of an attention instance: plans steps, runs the layers, calls experts and sampler, delivers tokens.
///
/// It lives on an event loop of its own, so that its kernels never delay the control loop.
public actor AttentionEngine {
    private struct Request {
        var history: [UInt32]
        let message: TokensRequest
        let events: AsyncStream<TokenEvent>.Continuation

        var generated: Int { history.count - message.prompt.count }
    }

    private nonisolated let loop: any Loop
    private let model: AttentionModel
    private let state: StateMemory
    private let experts: ExpertsDispatcher
    private let sampler: RPCClient
    private var scheduler: BatchScheduler
    private var requests: [UInt64: Request] = [:]
    private var cancelled: Set<UInt64> = []
    private var nextID: UInt64 = 1
    private var isStepping = false
    private var steps: Int64 = 0
    private var rows: Int64 = 0
    private var stepTime = Stopwatch()
    private var kernelTime = Stopwatch()

    /// The engine runs on its loop.
    public nonisolated var unownedExecutor: UnownedSerialExecutor { loop.asUnownedSerialExecutor() }

    init(
        loop: any Loop, model: AttentionModel, state: StateMemory, experts: ExpertsDispatcher, sampler: RPCClient,
        scheduler: BatchScheduler
    ) {
        self.loop = loop
        self.model = model
        self.state = state
        self.experts = experts
        self.sampler = sampler
        self.scheduler = scheduler
    }

    /// Queues a request; its tokens arrive as events. Returns its number for `cancel`.
    public func submit(
        _ message: TokensRequest, events: AsyncStream<TokenEvent>.Continuation
    ) throws(RPCError) -> UInt64 {
        let vocabulary = model.configuration.vocabularySize
        if let id = message.prompt.first(where: { Int($0) >= vocabulary }) {
            throw RPCError(.invalidArgument, "prompt holds token id \(id), the vocabulary has \(vocabulary)")
        }
        let id = nextID
        nextID += 1
        let request = ScheduledRequest(
            id: id, promptTokens: message.prompt.count, maximumTokens: Int(message.maxTokens))
        if case .rejected(let refusal) = scheduler.submit(request, now: loop.now) { throw Self.error(refusal) }
        requests[id] = Request(history: message.prompt, message: message, events: events)
        if !isStepping {
            isStepping = true
            Task(executorPreference: loop) { await self.runSteps() }
        }
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

    /// Forgets a request; its memory is free once the step in flight is over. Harmless when it is done.
    public func cancel(_ id: UInt64) {
        guard requests[id] != nil else { return }
        cancelled.insert(id)
        if !isStepping { removeCancelled() }
    }

    /// Counters for the status call.
    public func counters() -> [String: Int64] {
        [
            "requests_running": Int64(scheduler.runningCount), "requests_waiting": Int64(scheduler.waitingCount),
            "slots_in_use": Int64(scheduler.pools.slotsInUse), "slots": Int64(scheduler.pools.slotCount),
            "pages_in_use": Int64(scheduler.pools.pagesInUse), "pages": Int64(scheduler.pools.pageCount),
            "steps": steps, "rows": rows, "step_nanoseconds": stepTime.nanoseconds,
            "kernel_nanoseconds": kernelTime.nanoseconds,
        ]
    }

    private func runSteps() async {
        while true {
            let started = Stopwatch.now
            removeCancelled()
            let plan = scheduler.planStep(now: loop.now)
            endExpired()
            guard !plan.isEmpty else { break }
            do throws(RPCError) { try await step(plan) } catch {
                _ = scheduler.abandon(plan)
                for entry in plan { end(entry.id, .failed(error)) }
            }
            stepTime.add(since: started)
        }
        isStepping = false
    }

    private func endExpired() {
        for case .expired(let id) in scheduler.takeEvents() {
            end(id, .failed(RPCError(.notAccepted, "the request waited too long for memory")))
        }
    }

    private func removeCancelled() {
        for id in cancelled { end(id, .failed(RPCError(.cancelled, "the request was cancelled"))) }
        cancelled.removeAll()
    }

    private func end(_ id: UInt64, _ event: TokenEvent) {
        guard let request = requests.removeValue(forKey: id) else { return }
        scheduler.remove(id: id)
        request.events.yield(event)
        request.events.finish()
    }

    private func step(_ plan: [StepEntry]) async throws(RPCError) {
        let segments = plan.compactMap(segment)
        var started = Stopwatch.now
        model.begin(segments, state: state)
        for layer in 0..<model.configuration.layerCount {
            guard let routed = model.runLayer(layer) else { continue }
            kernelTime.add(since: started)
            let output = try await experts.run(layer: layer, routed)
            started = Stopwatch.now
            model.addExperts(output)
        }
        kernelTime.add(since: started)
        steps += 1
        rows += Int64(model.stepRowCount)
        scheduler.complete(plan)
        try await sample(plan)
    }

    private func segment(_ entry: StepEntry) -> Segment? {
        guard let request = requests[entry.id] else { return nil }
        return Segment(
            slot: entry.reservation.slot, pages: entry.reservation.pages, position: entry.positions.lowerBound,
            tokens: Array(request.history[entry.positions]), isPrefill: entry.isPrefill)
    }

    private func sample(_ plan: [StepEntry]) async throws(RPCError) {
        let hidden = model.configuration.hiddenSize
        let lastRows = model.lastRows
        let sampled = plan.indices.filter { plan[$0].samples }
        guard !sampled.isEmpty else { return }
        let body = AlignedBuffer(count: 4 * hidden * sampled.count)
        var rows: [SampleRow] = []
        for (position, index) in sampled.enumerated() {
            let source = UnsafeRawPointer(model.hiddenRows + lastRows[index] * hidden)
            (body.pointer + 4 * hidden * position).copyMemory(from: source, byteCount: 4 * hidden)
            guard let request = requests[plan[index].id] else { continue }
            let message = request.message
            rows.append(
                SampleRow(
                    sampling: message.sampling, position: UInt64(request.history.count),
                    topLogprobs: message.topLogprobs,
                    history: message.sampling.hasPenalties ? request.history : [],
                    promptCount: message.sampling.hasPenalties ? UInt32(message.prompt.count) : 0))
        }
        let payload = RPCPayload(
            metadata: SampleRequest(hidden: UInt32(hidden), rows: rows).encoded(), body: body)
        let reply = try await callSampler(payload)
        guard reply.items.count == sampled.count else {
            throw RPCError(.internal, "the sampler answered \(reply.items.count) of \(sampled.count) rows")
        }
        for (index, item) in zip(sampled, reply.items) { deliver(item, to: plan[index].id) }
    }

    private func callSampler(_ payload: RPCPayload) async throws(RPCError) -> SampleReply {
        let end = loop.now + 10_000_000
        while true {
            do throws(RPCError) {
                let now = loop.now
                let reply = try await sampler.call(
                    .sample, payload, timeoutMicroseconds: now < end ? end - now : 1)
                do throws(WireError) { return try SampleReply(decoding: reply.metadata) } catch {
                    throw RPCError(.internal, "the sampler's answer: \(error)")
                }
            } catch {
                guard error.isRetryable, loop.now < end else { throw error }
            }
        }
    }

    private func deliver(_ item: TokensItem, to id: UInt64) {
        guard requests[id] != nil, !cancelled.contains(id) else { return }
        requests[id]?.history.append(item.token.id)
        guard let request = requests[id] else { return }
        request.events.yield(.token(item))
        let stops = request.message.stopTokenIDs.contains(item.token.id)
        guard stops || request.generated >= Int(request.message.maxTokens) else { return }
        end(
            id,
            .finished(
                GenerateEnd(
                    reason: stops ? .stop : .length, promptTokens: UInt32(request.message.prompt.count),
                    completionTokens: UInt32(request.generated))))
    }
}
