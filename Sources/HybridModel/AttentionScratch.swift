import Checkpoint
import Numerics

/// Every buffer a step of `AttentionModel` writes, allocated once.
final class AttentionScratch: @unchecked Sendable {
    let hidden: FloatBuffer
    let normed: FloatBuffer
    let projected: FloatBuffer
    let cosine: FloatBuffer
    let sine: FloatBuffer
    /// Fused q, k, v of a linear layer, the queries of an MLA layer, or the gate of a dense MLP.
    let wide: FloatBuffer
    /// The output gate of a linear layer, the query latent of an MLA layer, or the up projection of a dense MLP.
    let wider: FloatBuffer
    /// Attention output before its projection.
    let attended: FloatBuffer
    let latent: FloatBuffer
    /// Keys and values of one block of 64, expanded for all heads.
    let expanded: FloatBuffer
    let maximum: FloatBuffer
    let total: FloatBuffer
    /// Per head: what its kernel needs.
    let perHead: FloatBuffer
    let perHeadCount: Int
    let routerLogits: FloatBuffer
    let router: FloatBuffer
    let expertWeights: FloatBuffer
    let expertIDs: UnsafeMutablePointer<Int32>

    init(_ c: ModelConfiguration, maximumRows rows: Int, routerScratch: Int) {
        let linearWidth = c.headCount * c.headWidth
        let queryWidth = c.headCount * (c.nopeWidth + c.ropeWidth)
        hidden = FloatBuffer(rows * c.hiddenSize)
        normed = FloatBuffer(rows * c.hiddenSize)
        projected = FloatBuffer(rows * c.hiddenSize)
        cosine = FloatBuffer(rows * c.ropeWidth / 2)
        sine = FloatBuffer(rows * c.ropeWidth / 2)
        wide = FloatBuffer(rows * max(3 * linearWidth, queryWidth, c.intermediateSize))
        wider = FloatBuffer(rows * max(linearWidth, c.queryRank ?? 0, c.intermediateSize))
        attended = FloatBuffer(rows * max(linearWidth, c.headCount * c.valueWidth))
        latent = FloatBuffer(rows * (c.latentWidth + c.ropeWidth))
        let block = Kernels.blockTokens
        expanded = FloatBuffer(block * c.headCount * (c.nopeWidth + c.valueWidth))
        maximum = FloatBuffer(rows * c.headCount)
        total = FloatBuffer(rows * c.headCount)
        let prefill = block * block + block * (c.nopeWidth + c.ropeWidth)
        let decode = 2 * c.latentWidth + c.ropeWidth + 2 * block
        perHeadCount = max(Kernels.linearAttentionScratch(width: c.headWidth), prefill, decode)
        perHead = FloatBuffer(c.headCount * perHeadCount)
        routerLogits = FloatBuffer(rows * c.expertCount)
        router = FloatBuffer(routerScratch)
        expertWeights = FloatBuffer(rows * c.expertsPerToken)
        expertIDs = .allocate(capacity: rows * c.expertsPerToken)
        expertIDs.initialize(repeating: 0, count: rows * c.expertsPerToken)
    }

    deinit { expertIDs.deallocate() }

    /// Bytes of all buffers.
    var byteCount: Int {
        let buffers = [
            hidden, normed, projected, cosine, sine, wide, wider, attended, latent, expanded, maximum, total, perHead,
            routerLogits, router, expertWeights,
        ]
        return buffers.reduce(0) { $0 + $1.byteCount } + expertWeights.byteCount
    }
}
