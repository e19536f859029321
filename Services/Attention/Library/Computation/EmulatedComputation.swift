import Checkpoint
import DeploymentModel
import Emulation
import EventLoop
import HybridModel
import Observability
import RPC
import Scheduling
import ServingSimulator
import WireProtocol

/// A simulated slice in the model's place: it sends the messages that the model would, and lets a step take the time that
/// the deployment's would.
///
/// The slice has one clock, and it is here: experts and sampler answer at once, and the step ends when its time is over.
final class EmulatedComputation: StepComputation, @unchecked Sendable {
    /// What an emulation depends on.
    struct Plan: Sendable {
        var model: EmulatedModel
        var serving: ServingDeployment
        var speedup = 1.0
        var elidesBodies = true
        /// Told about steps that were late, at most every ten seconds.
        var onLate: @Sendable (PacingSchedule.Record) -> Void = { _ in }
    }

    private static let reportMicroseconds: UInt64 = 10_000_000

    private let loop: any Loop
    private let plan: Plan
    private let places: [LayerPlace]
    private let experts: [ReplicaSet]
    private let sampler: SamplerCalls
    private var costs: Deployment
    private var schedule: PacingSchedule
    private var links: [TransferLink]
    /// When the last of a prompt's state will have left, nanoseconds.
    private var departures: [UInt64: UInt64] = [:]
    private var reported = PacingSchedule.Record()
    private var lastReport: UInt64 = 0
    private var messageTime = Stopwatch()

    init(_ plan: Plan, experts: [ReplicaSet], sampler: ReplicaSet, loop: any Loop) {
        self.loop = loop
        self.plan = plan
        places = LayerPlace.places(of: plan.model.configuration)
        self.experts = experts
        self.sampler = SamplerCalls(
            sampler: sampler, hidden: plan.model.configuration.hiddenSize,
            rowsPerCall: plan.elidesBodies ? SampleRequest.maximumRows : Self.rowsPerBody)
        costs = plan.serving.deployment
        schedule = PacingSchedule(speedup: plan.speedup)
        links = Array(repeating: plan.serving.link.faster(by: plan.speedup), count: plan.serving.ranks)
        lastReport = loop.now
        // No step may wait for its own cost to be simulated.
        costs.prepare(rowsPerRank: plan.serving.limits.rowsPerStep)
    }

    /// Rows whose tensors travel in one message.
    static let rowsPerBody = 512

    var vocabularySize: Int { plan.model.configuration.vocabularySize }

    var counters: [String: Int64] {
        let record = schedule.record
        return [
            "emulated": 1, "emulated_steps": record.steps, "emulated_late_steps": record.lateSteps,
            "emulated_step_nanoseconds": record.scheduledNanoseconds,
            "emulated_error_nanoseconds": record.errorNanoseconds,
            "emulated_worst_error_nanoseconds": record.worstNanoseconds,
            "emulated_lost_nanoseconds": record.lostNanoseconds,
            "emulated_speedup_thousandths": Int64(plan.speedup * 1000),
            "message_nanoseconds": messageTime.nanoseconds, "kernel_nanoseconds": 0,
        ]
    }

    func run(
        _ step: Step, continues: Bool, for engine: isolated AttentionEngine, _ trace: inout StepTrace
    ) async throws(RPCError) -> StepOutcome {
        let cost = costs.cost(of: StepWork(step)).total
        let end = schedule.begin(picoseconds: cost, now: loop.now * 1000, continues: continues)
        let started = Stopwatch.now
        let live = step.entries.filter { engine.request($0.id) != nil }
        let rows = live.reduce(0) { $0 + $1.positions.count }
        try await runLayers(live, rows: rows, engine, &trace)
        let rowsToSample = live.compactMap { entry -> SamplerCalls.Row? in
            guard entry.samples, let request = engine.request(entry.id) else { return nil }
            return SamplerCalls.Row(id: entry.id, hiddenRow: 0, row: request.sampleRow)
        }
        let hidden = plan.model.configuration.hiddenSize
        let sampled = try await sampler.sample(rowsToSample, &trace) { batch in
            plan.elidesBodies ? nil : AlignedBuffer(count: 4 * hidden * batch.count)
        }
        depart(step, engine, at: end)
        messageTime.add(since: started)
        await PreciseSleep.sleep(until: end / 1000, on: loop)
        schedule.finished(now: loop.now * 1000)
        report()
        // The device's time, whatever this machine made of it: what is learned from it decides what comes next.
        return StepOutcome(
            sampled: sampled, rows: rows, microseconds: max(1, UInt64(Double(max(0, cost)) / 1_000_000 / plan.speedup)))
    }

    func handOutMicroseconds(of id: UInt64, now: UInt64) -> UInt64 {
        guard let departure = departures.removeValue(forKey: id) else { return 0 }
        return departure / 1000 > now ? departure / 1000 - now : 0
    }

    /// What the step computed of prompts that are handed out leaves by the links of their ranks.
    private func depart(_ step: Step, _ engine: isolated AttentionEngine, at end: UInt64) {
        // Those of requests that nobody came for.
        departures = departures.filter { $0.value > loop.now * 1000 }
        for (rank, entries) in step.ranks.enumerated() {
            for entry in entries {
                guard let request = engine.request(entry.id), request.role == .prefill else { continue }
                let isComplete = entry.positions.upperBound == request.promptCount
                let departure = links[rank].send(
                    tokens: entry.positions.count, completesPrompt: isComplete, at: end)
                if isComplete { departures[entry.id] = departure }
            }
        }
    }

    private func report() {
        guard loop.now - lastReport > Self.reportMicroseconds else { return }
        let recent = schedule.record.since(reported)
        if recent.lateSteps > 0 { plan.onLate(recent) }
        reported = schedule.record
        lastReport = loop.now
    }

    // MARK: Messages

    private func runLayers(
        _ entries: [StepEntry], rows: Int, _ engine: isolated AttentionEngine, _ trace: inout StepTrace
    ) async throws(RPCError) {
        for layer in places.indices {
            engine.handOut(entries, layer, places[layer])
            trace.attention(layer)
            guard !plan.model.configuration.isDense(layer) else { continue }
            try await callExperts(layer, rows: rows, trace.lead)
            trace.experts(layer, rows: rows)
        }
        trace.layersEnd()
    }

    private func callExperts(_ layer: Int, rows: Int, _ trace: TraceContext) async throws(RPCError) {
        let limit = plan.elidesBodies ? rows : Self.rowsPerBody
        var left = rows
        while left > 0 {
            try await callAll(layer, rows: min(left, limit), trace)
            left -= min(left, limit)
        }
    }

    private func callAll(_ layer: Int, rows: Int, _ trace: TraceContext) async throws(RPCError) {
        guard experts.count > 1 else { return try await call(0, layer, rows, trace) }
        let results = await withTaskGroup(of: Result<Void, RPCError>.self) { group in
            for index in experts.indices {
                group.addTask(executorPreference: loop) { [self] in await answer(index, layer, rows, trace) }
            }
            var results: [Result<Void, RPCError>] = []
            for await result in group { results.append(result) }
            return results
        }
        for result in results { try result.get() }
    }

    private func answer(
        _ index: Int, _ layer: Int, _ rows: Int, _ trace: TraceContext
    ) async -> Result<Void, RPCError> {
        do throws(RPCError) { return .success(try await call(index, layer, rows, trace)) } catch {
            return .failure(error)
        }
    }

    /// One process's part of a layer: all rows when it is alone, otherwise as many pairs as routing would send it on
    /// average.
    private func call(
        _ index: Int, _ layer: Int, _ rows: Int, _ trace: TraceContext
    ) async throws(RPCError) {
        let c = plan.model.configuration
        let pairs = rows * c.expertsPerToken / experts.count
        let request = ExpertsRequest(
            layer: UInt32(layer), rowCount: UInt32(rows), hidden: UInt32(c.hiddenSize), pairCount: UInt32(pairs),
            sharedCount: UInt32(experts.count == 1 ? rows : rows / experts.count),
            combinedTopK: experts.count == 1 ? UInt32(c.expertsPerToken) : 0)
        let body = plan.elidesBodies ? nil : AlignedBuffer(count: request.bodyOffsets[5])
        do throws(RPCError) {
            let reply = try await experts[index].call(
                .expertsForward, RPCPayload(metadata: request.encoded(), body: body),
                timeoutMicroseconds: 10_000_000, trace: trace)
            guard (reply.body?.count ?? 0) == (plan.elidesBodies ? 0 : 4 * request.replyFloats) else {
                throw RPCError(.internal, "it answered with a body of the wrong size")
            }
        } catch {
            throw error.met(at: .experts, experts[index].name)
        }
    }
}

extension LayerPlace {
    /// What each layer of a model keeps.
    static func places(of configuration: ModelConfiguration) -> [LayerPlace] {
        var (linear, latent) = (0, 0)
        return (0..<configuration.layerCount).map { layer in
            if configuration.isFullAttention(layer) {
                defer { latent += 1 }
                return .latent(latent)
            }
            defer { linear += 1 }
            return .linear(linear)
        }
    }
}
