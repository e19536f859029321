import Checkpoint
import EngineCore
import EventLoop
import HybridModel
import Observability
import RPC
import Scheduling
import WireProtocol

/// What an instance without weights and without state is told from outside: the shape of its model, the pools and limits
/// of its data-parallel ranks, which go in lockstep, and the pace of their steps.
public struct PacedInstance: Sendable {
    /// What decides which messages go where, and how large they are.
    public let configuration: ModelConfiguration
    /// What tells the model from others.
    public let fingerprint: String
    /// Limits of each rank's scheduler.
    public let limits: SchedulerLimits
    /// Data-parallel ranks.
    public let ranks: Int
    /// Recurrent slots of a rank.
    public let slots: Int
    /// KV pages of a rank.
    public let pages: Int
    /// True when messages go without their tensors, false when they carry zeros of the real sizes.
    public let elidesBodies: Bool
    /// How long steps take.
    public let pace: any StepPace

    /// An instance of these parts.
    public init(
        configuration: ModelConfiguration, fingerprint: String, limits: SchedulerLimits, ranks: Int, slots: Int,
        pages: Int, elidesBodies: Bool, pace: any StepPace
    ) {
        self.configuration = configuration
        self.fingerprint = fingerprint
        self.limits = limits
        self.ranks = ranks
        self.slots = slots
        self.pages = pages
        self.elidesBodies = elidesBodies
        self.pace = pace
    }

    /// Rows a step of all ranks may have.
    var rowsPerStep: Int { ranks * limits.rowsPerStep }
}

/// Lets the steps of an instance that computes nothing take their time. Confined to the loop of the steps; times are
/// nanoseconds of its clock.
public protocol StepPace: AnyObject, Sendable {
    /// A step begins; `continues` when it follows the last one without a pause. Returns when it should end, and how long
    /// it takes in microseconds, whatever this machine makes of it.
    func begin(_ step: Step, continues: Bool) -> (end: UInt64, microseconds: UInt64)
    /// When the state of `tokens` of a prompt has left the instance by the link of `rank`, which a step that ends at `end`
    /// computed; `completesPrompt` when they are its last.
    func departure(ofTokens tokens: Int, completesPrompt: Bool, rank: Int, end: UInt64) -> UInt64
    /// Returns when the step that began last is over.
    func finish() async
    /// Counters for the status call.
    var counters: [String: Int64] { get }
}

/// A pace in the model's place: sends the messages that the model would, and lets a step take the time it is told.
///
/// The slice has one clock, and it is the pace: experts and sampler answer at once, and the step ends when its time is over.
final class PacedComputation: StepComputation {
    /// Rows whose tensors travel in one message.
    static let rowsPerBody = 512

    private let loop: any Loop
    private let instance: PacedInstance
    private let places: [LayerPlace]
    private let experts: ExpertsShares
    private let sampler: SamplerCalls
    /// When the last of a prompt's state will have left, nanoseconds.
    private var departures: [UInt64: UInt64] = [:]
    private var messageTime = Stopwatch()

    init(_ instance: PacedInstance, experts: [ReplicaSet], sampler: ReplicaSet, loop: any Loop) {
        self.loop = loop
        self.instance = instance
        places = LayerPlace.places(of: instance.configuration)
        self.experts = ExpertsShares(instance, experts, loop: loop)
        self.sampler = SamplerCalls(
            sampler: sampler, hidden: instance.configuration.hiddenSize,
            rowsPerCall: instance.elidesBodies ? SampleRequest.maximumRows : Self.rowsPerBody)
    }

    var vocabularySize: Int { instance.configuration.vocabularySize }

    var counters: [String: Int64] {
        let own = ["emulated": 1, "message_nanoseconds": messageTime.nanoseconds, "kernel_nanoseconds": 0]
        return instance.pace.counters.merging(own) { $1 }
    }

    func run(
        _ step: Step, continues: Bool, for engine: isolated AttentionEngine, _ trace: inout StepTrace
    ) async throws(RPCError) -> Engine<RPCError>.Outcome {
        let (end, microseconds) = instance.pace.begin(step, continues: continues)
        let started = Stopwatch.now
        let live = step.entries.filter { engine.request($0.id) != nil }
        let rows = live.reduce(0) { $0 + $1.positions.count }
        try await runLayers(live, rows: rows, engine, &trace)
        let hidden = instance.configuration.hiddenSize
        let sampled = try await sampler.sample(live, of: engine, &trace) { batch in
            instance.elidesBodies ? nil : AlignedBuffer(count: 4 * hidden * batch.count)
        }
        depart(step, engine, at: end)
        messageTime.add(since: started)
        await instance.pace.finish()
        // The device's time: what is learned from it decides what comes next.
        return Engine.Outcome(sampled: sampled, rows: rows, microseconds: microseconds)
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
                guard let request = engine.request(entry.id), request.part == .prefill else { continue }
                let isComplete = entry.positions.upperBound == request.promptCount
                let departure = instance.pace.departure(
                    ofTokens: entry.positions.count, completesPrompt: isComplete, rank: rank, end: end)
                if isComplete { departures[entry.id] = departure }
            }
        }
    }

    // MARK: Messages

    private func runLayers(
        _ entries: [StepEntry], rows: Int, _ engine: isolated AttentionEngine, _ trace: inout StepTrace
    ) async throws(RPCError) {
        for layer in places.indices {
            engine.handOut(entries, layer, places[layer])
            trace.attention(layer)
            guard !instance.configuration.isDense(layer) else { continue }
            try await experts.call(layer, rows: rows, trace.lead)
            trace.experts(layer, rows: rows)
        }
        trace.layersEnd()
    }
}

/// The calls of the experts that a step without a model sends.
private struct ExpertsShares: Sendable {
    private let instance: PacedInstance
    private let experts: [ReplicaSet]
    private let loop: any Loop

    init(_ instance: PacedInstance, _ experts: [ReplicaSet], loop: any Loop) {
        self.instance = instance
        self.experts = experts
        self.loop = loop
    }

    /// All calls of a layer.
    func call(_ layer: Int, rows: Int, _ trace: TraceContext) async throws(RPCError) {
        let limit = instance.elidesBodies ? rows : PacedComputation.rowsPerBody
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
                group.addTask(executorPreference: loop) { await answer(index, layer, rows, trace) }
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
        let c = instance.configuration
        let pairs = rows * c.expertsPerToken / experts.count
        let request = ExpertsRequest(
            layer: UInt32(layer), rowCount: UInt32(rows), hidden: UInt32(c.hiddenSize), pairCount: UInt32(pairs),
            sharedCount: UInt32(experts.count == 1 ? rows : rows / experts.count),
            combinedTopK: experts.count == 1 ? UInt32(c.expertsPerToken) : 0)
        let body = instance.elidesBodies ? nil : AlignedBuffer(count: request.bodyOffsets[5])
        do throws(RPCError) {
            let reply = try await experts[index].call(
                .expertsForward, RPCPayload(metadata: request.encoded(), body: body),
                timeoutMicroseconds: 10_000_000, trace: trace)
            guard (reply.body?.count ?? 0) == (instance.elidesBodies ? 0 : 4 * request.replyFloats) else {
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
