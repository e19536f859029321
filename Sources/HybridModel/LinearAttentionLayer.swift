import Numerics

extension AttentionModel {
    /// A linear (GLA) layer over all segments (docs/model.md#linear-attention); leaves its projection in `scratch.projected`.
    func linearAttention(_ weights: LinearAttentionWeights, _ index: Int, _ state: StateMemory) {
        let c = configuration
        let width = c.headCount * c.headWidth
        let fused = scratch.larger.pointer
        let gate = scratch.smaller.pointer
        let attended = scratch.attended.pointer
        project(scratch.normed.pointer, weights.queryKeyValue, into: fused)
        project(scratch.normed.pointer, weights.gate, into: gate)
        forEachRow { row in prepareLinearRow(fused + row * 3 * width, row, weights) }
        team.reserve(shared: 0, perWorker: 4 * Kernels.linearAttentionScratch(width: c.headWidth))
        team.run(c.headCount) { head, worker in
            let memory = team.workerScratch(worker).assumingMemoryBound(to: Float.self)
            var row = 0
            for segment in segments {
                linearHead(head, segment, row, weights, state.state(slot: segment.slot, linearIndex: index), memory)
                row += segment.tokens.count
            }
        }
        let groupWidth = width / c.normGroupCount
        forEachRow { row in
            for group in 0..<c.normGroupCount {
                let block = attended + row * width + group * groupWidth
                Kernels.rmsNorm(
                    block, weight: weights.outputNorm + group * groupWidth, epsilon: c.normEpsilon, groupWidth,
                    into: block)
            }
            Kernels.sigmoidMultiply(attended + row * width, gate: gate + row * width, width)
        }
        project(attended, weights.output, into: scratch.projected.pointer)
    }

    /// Norm, then partial rotary, on the queries and keys of one row.
    private func prepareLinearRow(_ fused: UnsafeMutablePointer<Float>, _ row: Int, _ weights: LinearAttentionWeights) {
        let c = configuration
        for part in 0..<2 {
            let norm = part == 0 ? weights.queryNorm : weights.keyNorm
            for head in 0..<c.headCount {
                let x = fused + (part * c.headCount + head) * c.headWidth
                Kernels.rmsNorm(x, weight: norm, epsilon: c.normEpsilon, c.headWidth, into: x)
                Kernels.rotateHalfSplit(
                    x, cosine: scratch.cosine.pointer + row * rotaryHalf, sine: scratch.sine.pointer + row * rotaryHalf,
                    half: rotaryHalf)
            }
        }
    }

    private func linearHead(
        _ head: Int, _ segment: Segment, _ row: Int, _ weights: LinearAttentionWeights,
        _ states: UnsafeMutablePointer<Float>, _ memory: UnsafeMutablePointer<Float>
    ) {
        let width = configuration.headWidth
        let outputStride = configuration.headCount * width
        let query = scratch.larger.pointer + row * 3 * outputStride + head * width
        Kernels.linearAttention(
            state: states + head * width * width, width: width, count: segment.tokens.count,
            decay: weights.decays.pointer[head], query: query, key: query + outputStride,
            value: query + 2 * outputStride, stride: 3 * outputStride,
            into: scratch.attended.pointer + row * outputStride + head * width, outputStride: outputStride,
            scratch: memory)
    }
}
