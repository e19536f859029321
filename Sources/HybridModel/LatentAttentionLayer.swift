import Checkpoint
import Numerics

extension AttentionModel {
    /// An MLA layer over all segments (docs/model.md#latent-attention): naive with expanded keys in prefill, absorbed in decode. Leaves
    /// its projection in `scratch.projected`.
    func latentAttention(_ weights: LatentAttentionWeights, _ index: Int, _ state: StateMemory) {
        let queries = scratch.larger.pointer
        if let down = weights.queryDown {
            let rank = down.matrix.rows
            let compressed = scratch.smaller.pointer
            project(scratch.normed.pointer, down.matrix, into: compressed)
            forEachRow { row in
                Kernels.rmsNorm(
                    compressed + row * rank, weight: down.norm, epsilon: ModelConfiguration.latentNormEpsilon, rank,
                    into: compressed + row * rank)
            }
            project(compressed, weights.query, into: queries)
        } else {
            project(scratch.normed.pointer, weights.query, into: queries)
        }
        project(scratch.normed.pointer, weights.latent, into: scratch.latent.pointer)
        forEachRow { row in prepareLatentRow(row, weights) }
        storeLatents(index, state)
        var row = 0
        for segment in segments {
            if segment.isPrefill { prefillAttention(segment, row, weights, index, state) }
            row += segment.tokens.count
        }
        decodeAttention(weights, index, state)
        project(scratch.attended.pointer, weights.output, into: scratch.projected.pointer)
    }

    private var latentStride: Int { configuration.latentWidth + configuration.ropeWidth }
    private var queryHeadWidth: Int { configuration.nopeWidth + configuration.ropeWidth }

    /// Rotates the queries, norms the latent and rotates the shared key of one row.
    private func prepareLatentRow(_ row: Int, _ weights: LatentAttentionWeights) {
        let c = configuration
        let cosine = scratch.cosine.pointer + row * rotaryHalf
        let sine = scratch.sine.pointer + row * rotaryHalf
        let queries = scratch.larger.pointer + row * c.headCount * queryHeadWidth
        for head in 0..<c.headCount {
            Kernels.rotateInterleaved(
                queries + head * queryHeadWidth + c.nopeWidth, cosine: cosine, sine: sine, half: rotaryHalf)
        }
        let latent = scratch.latent.pointer + row * latentStride
        Kernels.rmsNorm(
            latent, weight: weights.latentNorm, epsilon: ModelConfiguration.latentNormEpsilon, c.latentWidth,
            into: latent)
        Kernels.rotateInterleaved(latent + c.latentWidth, cosine: cosine, sine: sine, half: rotaryHalf)
    }

    private func storeLatents(_ index: Int, _ state: StateMemory) {
        var row = 0
        for segment in segments {
            for offset in segment.tokens.indices {
                let position = segment.position + offset
                let page = state.latents(page: segment.pages[position / StateMemory.pageTokens], latentIndex: index)
                (page + position % StateMemory.pageTokens * latentStride).update(
                    from: scratch.latent.pointer + row * latentStride, count: latentStride)
                row += 1
            }
        }
    }

    // MARK: Prefill

    private func prefillAttention(
        _ segment: Segment, _ row: Int, _ weights: LatentAttentionWeights, _ index: Int, _ state: StateMemory
    ) {
        let c = configuration
        let count = segment.tokens.count
        let end = segment.position + count
        for i in 0..<c.headCount * count {
            scratch.maximum.pointer[i] = -.infinity
            scratch.total.pointer[i] = 0
        }
        let width = c.headCount * c.valueWidth
        (scratch.attended.pointer + row * width).update(repeating: 0, count: count * width)
        for block in 0...(end - 1) / Kernels.blockTokens {
            let latents = state.latents(page: segment.pages[block], latentIndex: index)
            let keys = min(Kernels.blockTokens, end - block * Kernels.blockTokens)
            Kernels.multiply(
                latents, rowCount: keys, rowStride: latentStride, by: weights.expansion,
                into: scratch.expanded.pointer, outputStride: weights.expansion.rows, team: team)
            team.run(c.headCount) { head in
                prefillHead(head, segment, row, block, keys, latents)
            }
        }
        team.run(c.headCount) { head in
            for i in 0..<count {
                let out = scratch.attended.pointer + (row + i) * width + head * c.valueWidth
                let factor = 1 / scratch.total.pointer[head * count + i]
                for v in 0..<c.valueWidth { out[v] *= factor }
            }
        }
    }

    /// One head's queries of a segment over one block of keys.
    private func prefillHead(
        _ head: Int, _ segment: Segment, _ row: Int, _ block: Int, _ keys: Int, _ latents: UnsafePointer<Float>
    ) {
        let c = configuration
        let count = segment.tokens.count
        let expandedWidth = c.nopeWidth + c.valueWidth
        let expandedStride = c.headCount * expandedWidth
        let expanded = scratch.expanded.pointer + head * expandedWidth
        let scores = scratch.perHead.pointer + head * scratch.perHeadCount
        let key = scores + Kernels.blockTokens * Kernels.blockTokens
        for j in 0..<keys {
            let target = key + j * queryHeadWidth
            target.update(from: expanded + j * expandedStride, count: c.nopeWidth)
            (target + c.nopeWidth).update(from: latents + j * latentStride + c.latentWidth, count: c.ropeWidth)
        }
        // the first query that sees any key of this block
        var first = max(0, block * Kernels.blockTokens - segment.position)
        let outputStride = c.headCount * c.valueWidth
        while first < count {
            let rows = min(Kernels.blockTokens, count - first)
            Kernels.attendBlock(
                query: scratch.larger.pointer + (row + first) * c.headCount * queryHeadWidth + head * queryHeadWidth,
                queryStride: c.headCount * queryHeadWidth, rows: rows, key: key, keyStride: queryHeadWidth,
                value: expanded + c.nopeWidth, valueStride: expandedStride, keyCount: keys,
                visible: segment.position + first - block * Kernels.blockTokens + 1, dimension: queryHeadWidth,
                width: c.valueWidth, scale: softmaxScale, maximum: scratch.maximum.pointer + head * count + first,
                total: scratch.total.pointer + head * count + first,
                output: scratch.attended.pointer + (row + first) * outputStride + head * c.valueWidth,
                outputStride: outputStride, scratch: scores)
            first += rows
        }
    }

    private var softmaxScale: Float { rotary.softmaxFactor / Float(queryHeadWidth).squareRoot() }

    // MARK: Decode

    private func decodeAttention(_ weights: LatentAttentionWeights, _ index: Int, _ state: StateMemory) {
        guard segments.contains(where: { !$0.isPrefill }) else { return }
        team.reserve(shared: 0, perWorker: Kernels.scratchBytes(weights.expansion))
        team.run(configuration.headCount) { head, worker in
            var row = 0
            for segment in segments {
                for offset in segment.isPrefill ? 0..<0 : segment.tokens.indices {
                    decodeHead(head, segment, row + offset, segment.position + offset, weights, index, state, worker)
                }
                row += segment.tokens.count
            }
        }
    }

    /// One head of the decode row at `position` in the absorbed form: W_UK goes into the query, W_UV onto the
    /// attended latent.
    private func decodeHead(
        _ head: Int, _ segment: Segment, _ row: Int, _ position: Int, _ weights: LatentAttentionWeights, _ index: Int,
        _ state: StateMemory, _ worker: Int
    ) {
        let c = configuration
        let query = scratch.larger.pointer + (row * c.headCount + head) * queryHeadWidth
        let absorbed = scratch.perHead.pointer + head * scratch.perHeadCount
        let attended = absorbed + latentStride + Kernels.blockTokens
        let scores = attended + c.latentWidth
        let base = head * (c.nopeWidth + c.valueWidth)
        Kernels.multiplyTransposed(
            query, by: weights.expansion.rows(base..<base + c.nopeWidth), into: absorbed)
        (absorbed + c.latentWidth).update(from: query + c.nopeWidth, count: c.ropeWidth)
        attended.update(repeating: 0, count: c.latentWidth)
        var (maximum, total) = (-Float.infinity, Float(0))
        let tokens = position + 1
        for block in 0...(tokens - 1) / Kernels.blockTokens {
            let latents = state.latents(page: segment.pages[block], latentIndex: index)
            let keys = min(Kernels.blockTokens, tokens - block * Kernels.blockTokens)
            Kernels.attendBlock(
                query: absorbed, queryStride: latentStride, rows: 1, key: latents, keyStride: latentStride,
                value: latents, valueStride: latentStride, keyCount: keys, visible: keys, dimension: latentStride,
                width: c.latentWidth, scale: softmaxScale, maximum: &maximum, total: &total, output: attended,
                outputStride: c.latentWidth, scratch: scores)
        }
        for r in 0..<c.latentWidth { attended[r] /= total }
        let values = weights.expansion.rows(base + c.nopeWidth..<base + c.nopeWidth + c.valueWidth)
        Kernels.pack(attended, for: values, into: absorbed)
        Kernels.multiplyPacked(
            absorbed, 1, latentStride, values, 0..<c.valueWidth,
            scratch.attended.pointer + (row * c.headCount + head) * c.valueWidth, c.valueWidth,
            scratch: team.workerScratch(worker))
    }
}
