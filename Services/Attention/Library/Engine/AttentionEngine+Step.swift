import HybridModel
import Observability
import RPC
import Scheduling
import WireProtocol

/// One step: the layers, what they make ready to be handed out, and the tokens.
extension AttentionEngine {
    func step(_ plan: [StepEntry]) async throws(RPCError) {
        let begun = loop.now
        let live = plan.filter { request($0.id) != nil }
        var trace = StepTrace(telemetry.spans, step: steps + 1, live, request)
        try await runLayers(live, &trace)
        let tokens = try await sample(live, &trace)
        trace.end(rows: model.stepRowCount)
        steps += 1
        rows += Int64(model.stepRowCount)
        scheduler.complete(plan, microseconds: loop.now - begun)
        for (id, item) in tokens { deliver(item, to: id) }
    }

    private func runLayers(_ plan: [StepEntry], _ trace: inout StepTrace) async throws(RPCError) {
        let segments = plan.compactMap(segment)
        var started = Stopwatch.now
        model.begin(segments, state: state)
        for layer in 0..<model.configuration.layerCount {
            let routed = model.runLayer(layer)
            handOut(plan, layer)
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

    private func segment(_ entry: StepEntry) -> Segment? {
        guard let request = request(entry.id) else { return nil }
        return Segment(
            slot: entry.reservation.slot, pages: entry.reservation.pages, position: entry.positions.lowerBound,
            tokens: Array(request.history[entry.positions]), isPrefill: entry.isPrefill)
    }

    /// A layer's state is final for the step's tokens as soon as its attention has run; it travels while the experts
    /// and the later layers compute. A recurrent state is final only after the last chunk.
    private func handOut(_ plan: [StepEntry], _ layer: Int) {
        for entry in plan {
            guard let request = request(entry.id), request.role == .prefillOnly else { continue }
            var segment = StateSegment(
                kind: .latents, layer: UInt32(layer), first: UInt32(entry.positions.lowerBound),
                count: UInt32(entry.positions.count), generation: request.generation)
            if case .linear = model.layerPlaces[layer] {
                guard entry.positions.upperBound == request.promptCount else { continue }
                (segment.kind, segment.first, segment.count) = (.state, 0, UInt32(request.promptCount))
            }
            tell(entry.id, .segment(segment))
        }
    }

    // MARK: Sampling

    private struct Sampled {
        let id: UInt64
        let hiddenRow: Int
        let row: SampleRow

        /// Words of the row in a call.
        var words: Int { 16 + row.history.count }
    }

    /// The tokens of the entries that are sampled and whose requests are still here.
    private func sample(
        _ plan: [StepEntry], _ trace: inout StepTrace
    ) async throws(RPCError) -> [(UInt64, TokensItem)] {
        let lastRows = model.lastRows
        let sampled = plan.enumerated().compactMap { index, entry -> Sampled? in
            guard entry.samples, let request = request(entry.id) else { return nil }
            return Sampled(id: entry.id, hiddenRow: lastRows[index], row: request.sampleRow)
        }
        var tokens: [(UInt64, TokensItem)] = []
        for batch in sampleBatches(sampled) {
            let items = try await callSampler(batch, &trace)
            tokens += zip(batch, items).map { ($0.id, $1) }
        }
        return tokens
    }

    /// Rows in calls whose metadata, histories of penalised requests above all, fit a frame.
    private func sampleBatches(_ sampled: [Sampled]) -> [[Sampled]] {
        var batches: [[Sampled]] = []
        var words = Self.sampleWords
        for row in sampled {
            if words + row.words > Self.sampleWords {
                batches.append([])
                words = 0
            }
            words += row.words
            batches[batches.count - 1].append(row)
        }
        return batches
    }

    private func callSampler(_ batch: [Sampled], _ trace: inout StepTrace) async throws(RPCError) -> [TokensItem] {
        let started = Stopwatch.now
        defer { trace.sampler(since: started, rows: batch.count) }
        let hidden = model.configuration.hiddenSize
        let body = AlignedBuffer(count: 4 * hidden * batch.count)
        for (position, entry) in batch.enumerated() {
            let source = UnsafeRawPointer(model.hiddenRows + entry.hiddenRow * hidden)
            (body.pointer + 4 * hidden * position).copyMemory(from: source, byteCount: 4 * hidden)
        }
        let request = SampleRequest(hidden: UInt32(hidden), rows: batch.map(\.row))
        let payload = try await sampler.call(
            .sample, RPCPayload(metadata: request.encoded(), body: body), timeoutMicroseconds: 10_000_000,
            trace: trace.lead)
        let reply: SampleReply
        do throws(WireError) { reply = try SampleReply(decoding: payload.metadata) } catch {
            throw RPCError(.internal, "the sampler's answer: \(error)")
        }
        guard reply.items.count == batch.count else {
            throw RPCError(.internal, "the sampler answered \(reply.items.count) of \(batch.count) rows")
        }
        return reply.items
    }
}
