import EngineCore
import HybridModel
import Observability
import RPC
import Scheduling
import WireProtocol

/// The model itself: the layers here, the experts and the head in their services.
final class ModelComputation: StepComputation {
    private let model: AttentionModel
    private let state: StateMemory
    private let experts: ExpertsDispatcher
    private let sampler: SamplerCalls
    private var kernelTime = Stopwatch()

    init(model: AttentionModel, state: StateMemory, experts: ExpertsDispatcher, sampler: ReplicaSet) {
        self.model = model
        self.state = state
        self.experts = experts
        self.sampler = SamplerCalls(sampler: sampler, hidden: model.configuration.hiddenSize)
    }

    var vocabularySize: Int { model.configuration.vocabularySize }

    var counters: [String: Int64] {
        var counters = ["kernel_nanoseconds": kernelTime.nanoseconds]
        for (name, value) in experts.counters { counters["experts_\(name)"] = value }
        for (name, value) in sampler.sampler.counters { counters["sampler_\(name)"] = value }
        return counters
    }

    func run(
        _ step: Step, continues: Bool, for engine: isolated AttentionEngine, _ trace: inout StepTrace
    ) async throws(RPCError) -> Engine<RPCError>.Outcome {
        let begun = engine.loop.now
        // Before anything can fail: what is kept is whole, whatever becomes of the step.
        for copy in step.copies {
            state.copy(slot: copy.slots.from, to: copy.slots.to)
            if let pages = copy.pages { state.copy(page: pages.from, to: pages.to) }
        }
        let live = step.entries.filter { engine.request($0.id) != nil }
        try await runLayers(live, engine, &trace)
        let lastRows = model.lastRows
        let sampled = try await sampler.sample(live, of: engine, &trace) { hiddenRows($0.map { lastRows[$0] }) }
        return Engine.Outcome(sampled: sampled, rows: model.stepRowCount, microseconds: engine.loop.now - begun)
    }

    func handOutMicroseconds(of id: UInt64, now: UInt64) -> UInt64 { 0 }

    private func runLayers(
        _ plan: [StepEntry], _ engine: isolated AttentionEngine, _ trace: inout StepTrace
    ) async throws(RPCError) {
        let segments = plan.compactMap { entry -> Segment? in
            guard let request = engine.request(entry.id) else { return nil }
            return Segment(
                slot: entry.reservation.slot, pages: entry.reservation.pages, position: entry.positions.lowerBound,
                tokens: Array(request.tokens[entry.positions]))
        }
        var started = Stopwatch.now
        model.begin(segments, state: state)
        for layer in 0..<model.configuration.layerCount {
            let routed = model.runLayer(layer)
            engine.handOut(plan, layer, model.layerPlaces[layer])
            guard let routed else {
                trace.attention(layer)
                continue
            }
            kernelTime.add(since: started)
            trace.attention(layer)
            let output = try await experts.run(layer: layer, routed, trace: trace.lead)
            started = Stopwatch.now
            trace.experts(layer, rows: routed.rowCount)
            model.addExperts(output)
        }
        kernelTime.add(since: started)
        trace.layersEnd()
    }

    private func hiddenRows(_ batch: [Int]) -> AlignedBuffer {
        let hidden = model.configuration.hiddenSize
        let body = AlignedBuffer(count: 4 * hidden * batch.count)
        for (position, row) in batch.enumerated() {
            let source = UnsafeRawPointer(model.hiddenRows + row * hidden)
            (body.pointer + 4 * hidden * position).copyMemory(from: source, byteCount: 4 * hidden)
        }
        return body
    }
}
