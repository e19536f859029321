import Checkpoint
import Numerics

extension AttentionModel {
    /// An MLA layer over all segments, with absorbed queries (docs/model.md#latent-attention). Leaves its projection in
    /// `scratch.projected`.
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
        attend(weights, index, state)
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

    private var softmaxScale: Float { rotary.softmaxFactor / Float(queryHeadWidth).squareRoot() }

    // MARK: Attention

    private func attend(_ weights: LatentAttentionWeights, _ index: Int, _ state: StateMemory) {
        let parts = attentionParts
        let layout = AttendLayout(configuration, weights.expansion)
        team.reserve(shared: 0, perWorker: layout.byteCount)
        team.run(parts.count) { part, worker in
            attend(parts[part], weights, index, state, layout.buffers(team.workerScratch(worker)))
        }
    }

    /// The queries of some tokens and heads in the absorbed form: W_UK goes into them, W_UV onto the attended latents.
    private func attend(
        _ part: AttentionPart, _ weights: LatentAttentionWeights, _ index: Int, _ state: StateMemory,
        _ buffers: AttendLayout.Buffers
    ) {
        let c = configuration
        let groups = (part.queryCount + Kernels.queryLanes - 1) / Kernels.queryLanes
        absorb(part, groups, weights, buffers)
        for i in 0..<groups * Kernels.queryLanes { (buffers.maximum[i], buffers.total[i]) = (-.infinity, 0) }
        buffers.outputs.update(repeating: 0, count: groups * Kernels.queryLanes * c.latentWidth)
        let end = part.position + part.tokens
        for block in 0...(end - 1) / Kernels.blockTokens {
            let start = block * Kernels.blockTokens
            let latents = state.latents(page: segments[part.segment].pages[block], latentIndex: index)
            for group in 0..<groups {
                attendGroup(part, group, latents, start, min(Kernels.blockTokens, end - start), buffers)
            }
        }
        for query in 0..<part.queryCount {
            let output = buffers.outputs + query * c.latentWidth
            let factor = 1 / buffers.total[query]
            for r in 0..<c.latentWidth { output[r] *= factor }
        }
        expandValues(part, weights, buffers)
    }

    /// Sixteen queries against one block of latents, as far as they see it.
    private func attendGroup(
        _ part: AttentionPart, _ group: Int, _ latents: UnsafePointer<Float>, _ start: Int, _ keyCount: Int,
        _ buffers: AttendLayout.Buffers
    ) {
        let first = group * Kernels.queryLanes
        let count = min(Kernels.queryLanes, part.queryCount - first)
        var visible = InlineArray<16, Int32>(repeating: 0)
        var (least, most) = (keyCount, 0)
        for lane in 0..<count {
            let seen = max(0, min(keyCount, part.position + (first + lane) % part.tokens + 1 - start))
            visible[lane] = Int32(truncatingIfNeeded: seen)
            (least, most) = (min(least, seen), max(most, seen))
        }
        guard most > 0 else { return }
        let c = configuration
        visible.span.withUnsafeBufferPointer { visible in
            Kernels.attendBlock(
                queries: buffers.queries + first * latentStride, queryCount: count, latents: latents,
                stride: latentStride, keyCount: most, visible: least < most ? visible.baseAddress : nil,
                dimension: latentStride, width: c.latentWidth, maximum: buffers.maximum + first,
                total: buffers.total + first, output: buffers.outputs + first * c.latentWidth,
                scratch: buffers.scores)
        }
    }

    /// Queries [group][R + dr][16], scaled: the first R with W_UK in them, then the rotated ones.
    private func absorb(
        _ part: AttentionPart, _ groups: Int, _ weights: LatentAttentionWeights, _ buffers: AttendLayout.Buffers
    ) {
        let c = configuration
        let lanes = Kernels.queryLanes
        let isOneHead = part.heads.count == 1
        if part.queryCount < groups * lanes {
            buffers.queries.update(repeating: 0, count: groups * lanes * latentStride)
            buffers.plain.update(repeating: 0, count: groups * lanes * c.nopeWidth)
        }
        for query in 0..<part.queryCount {
            let (head, token) = (part.heads.lowerBound + query / part.tokens, query % part.tokens)
            let source = scratch.larger.pointer + ((part.row + token) * c.headCount + head) * queryHeadWidth
            let target = buffers.queries + query / lanes * lanes * latentStride + query % lanes
            for i in 0..<c.ropeWidth {
                target[(c.latentWidth + i) * lanes] = source[c.nopeWidth + i] * softmaxScale
            }
            let plain = buffers.plain + (isOneHead ? query / lanes * lanes * c.nopeWidth + query % lanes : 0)
            for i in 0..<c.nopeWidth { plain[isOneHead ? i * lanes : i] = source[i] * softmaxScale }
            guard !isOneHead else { continue }
            Kernels.multiplyTransposed(plain, by: keys(head, weights), into: buffers.outputs)
            for i in 0..<c.latentWidth { target[i * lanes] = buffers.outputs[i] }
        }
        guard isOneHead else { return }
        Kernels.multiplyTransposedLanes(
            buffers.plain, groups: groups, by: keys(part.heads.lowerBound, weights), into: buffers.queries,
            outputStride: lanes * latentStride, scratch: buffers.panel)
    }

    private func expandValues(_ part: AttentionPart, _ weights: LatentAttentionWeights, _ buffers: AttendLayout.Buffers)
    {
        let c = configuration
        let width = Kernels.packedWidth(weights.expansion)
        for (index, head) in part.heads.enumerated() {
            let base = head * (c.nopeWidth + c.valueWidth) + c.nopeWidth
            let values = weights.expansion.rows(base..<base + c.valueWidth)
            for token in 0..<part.tokens {
                let output = buffers.outputs + (index * part.tokens + token) * c.latentWidth
                Kernels.pack(output, for: values, into: buffers.packed + token * width)
            }
            Kernels.multiplyPacked(
                buffers.packed, part.tokens, width, values, 0..<c.valueWidth,
                scratch.attended.pointer + (part.row * c.headCount + head) * c.valueWidth, c.headCount * c.valueWidth,
                scratch: buffers.widened)
        }
    }

    /// W_UK of a head, [dn, R].
    private func keys(_ head: Int, _ weights: LatentAttentionWeights) -> WeightMatrix {
        let base = head * (configuration.nopeWidth + configuration.valueWidth)
        return weights.expansion.rows(base..<base + configuration.nopeWidth)
    }
}

/// Queries that one thread attends for: tokens of a segment times heads, 64 at most, by head and then by token.
struct AttentionPart {
    let segment: Int
    /// First row of the step, and its position.
    let row: Int
    let position: Int
    let tokens: Int
    let heads: Range<Int>

    /// Queries of a part at most.
    static let mostQueries = 64

    var queryCount: Int { tokens * heads.count }

    /// All parts of a segment that starts at `row`: for few tokens several heads at once, so that no lane is idle, but
    /// `mostHeads` at most, so that no thread is.
    static func append(
        _ segment: Segment, _ index: Int, row: Int, headCount: Int, mostHeads: Int, to parts: inout [AttentionPart]
    ) {
        let count = segment.tokens.count
        let heads = max(1, min(mostHeads, Kernels.queryLanes / count))
        for first in stride(from: 0, to: count, by: mostQueries) {
            for head in stride(from: 0, to: headCount, by: heads) {
                parts.append(
                    AttentionPart(
                        segment: index, row: row + first, position: segment.position + first,
                        tokens: min(mostQueries, count - first), heads: head..<min(headCount, head + heads)))
            }
        }
    }
}

/// Where the buffers of one thread's part lie in its scratch memory.
struct AttendLayout {
    struct Buffers {
        /// [4][R + dr][16]
        let queries: UnsafeMutablePointer<Float>
        /// Attended latents, [64, R].
        let outputs: UnsafeMutablePointer<Float>
        /// Queries without W_UK, [4][dn][16] or [dn].
        let plain: UnsafeMutablePointer<Float>
        /// Outputs of a head in the order of the weights, [64, width]; the queries are done with by then.
        var packed: UnsafeMutablePointer<Float> { queries }
        let maximum: UnsafeMutablePointer<Float>
        let total: UnsafeMutablePointer<Float>
        let scores: UnsafeMutablePointer<Float>
        let panel: UnsafeMutablePointer<Float>
        /// What a product with W_UV needs.
        let widened: UnsafeMutableRawPointer
    }

    private let sizes: [Int]
    private let widenedBytes: Int

    init(_ c: ModelConfiguration, _ expansion: WeightMatrix) {
        let queries = AttentionPart.mostQueries
        sizes = [
            queries * max(c.latentWidth + c.ropeWidth, Kernels.packedWidth(expansion)), queries * c.latentWidth,
            queries * c.nopeWidth, queries, queries, Kernels.attendScratch,
            Kernels.transposedScratch(expansion.rows(0..<c.nopeWidth), groups: queries / Kernels.queryLanes),
        ]
        widenedBytes = Kernels.scratchBytes(expansion)
    }

    var byteCount: Int { 4 * sizes.reduce(0, +) + 64 + widenedBytes }

    func buffers(_ memory: UnsafeMutableRawPointer) -> Buffers {
        var next = memory.assumingMemoryBound(to: Float.self)
        func take(_ index: Int) -> UnsafeMutablePointer<Float> {
            defer { next += sizes[index] }
            return next
        }
        return Buffers(
            queries: take(0), outputs: take(1), plain: take(2), maximum: take(3), total: take(4), scores: take(5),
            panel: take(6), widened: UnsafeMutableRawPointer(next).alignedUp(toMultipleOf: 64))
    }
}
