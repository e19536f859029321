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
        try await runLayers(live)
        let tokens = try await sample(live)
        steps += 1
        rows += Int64(model.stepRowCount)
        scheduler.complete(plan, microseconds: loop.now - begun)
        for (id, item) in tokens { deliver(item, to: id) }
    }

    private func runLayers(_ plan: [StepEntry]) async throws(RPCError) {
        let segments = plan.compactMap(segment)
        var started = Stopwatch.now
        model.begin(segments, state: state)
        for layer in 0..<model.configuration.layerCount {
            let routed = model.runLayer(layer)
            handOut(plan, layer)
            guard let routed else { continue }
            kernelTime.add(since: started)
            let output = try await experts.run(layer: layer, routed)
            started = Stopwatch.now
            model.addExperts(output)
        }
        kernelTime.add(since: started)
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
        let place = model.layerPlaces[layer]
        for entry in plan {
            guard let request = request(entry.id), request.role == .prefillOnly else { continue }
            switch place {
            case .latent(let index):
                tell(
                    entry.id,
                    .segment(
                        StateSegment(
                            kind: .latents, layer: UInt32(index), first: UInt32(entry.positions.lowerBound),
                            count: UInt32(entry.positions.count), generation: request.generation)))
            case .linear(let index):
                guard entry.positions.upperBound == request.promptCount else { continue }
                tell(
                    entry.id,
                    .segment(
                        StateSegment(
                            kind: .state, layer: UInt32(index), first: 0, count: UInt32(request.promptCount),
                            generation: request.generation)))
            }
        }
    }

    // MARK: Sampling

    /// The tokens of the entries that are sampled and whose requests are still here.
    private func sample(_ plan: [StepEntry]) async throws(RPCError) -> [(UInt64, TokensItem)] {
        let hidden = model.configuration.hiddenSize
        let lastRows = model.lastRows
        var rows: [SampleRow] = []
        var sampled: [(id: UInt64, row: Int)] = []
        for (index, entry) in plan.enumerated() where entry.samples {
            guard let request = request(entry.id) else { continue }
            rows.append(request.sampleRow)
            sampled.append((entry.id, lastRows[index]))
        }
        guard !sampled.isEmpty else { return [] }
        let body = AlignedBuffer(count: 4 * hidden * sampled.count)
        for (position, entry) in sampled.enumerated() {
            let source = UnsafeRawPointer(model.hiddenRows + entry.row * hidden)
            (body.pointer + 4 * hidden * position).copyMemory(from: source, byteCount: 4 * hidden)
        }
        let reply = try await callSampler(
            RPCPayload(metadata: SampleRequest(hidden: UInt32(hidden), rows: rows).encoded(), body: body))
        guard reply.items.count == sampled.count else {
            throw RPCError(.internal, "the sampler answered \(reply.items.count) of \(sampled.count) rows")
        }
        return zip(sampled, reply.items).map { ($0.id, $1) }
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
}
