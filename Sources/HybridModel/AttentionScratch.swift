import Checkpoint
import Numerics

/// Every buffer a step of `AttentionModel` writes, allocated once.
final class AttentionScratch: Sendable {
    /// The residual stream, [rows, h].
    let hidden: FloatBuffer
    /// A norm of it, [rows, h].
    let normed: FloatBuffer
    /// What is added to it next, [rows, h].
    let projected: FloatBuffer
    /// Of the positions of a layer kind, [rows, rotated width / 2].
    let cosine, sine: FloatBuffer
    /// Fused q, k, v of a linear layer, [rows, 3 · H · D]; the queries of an MLA layer, [rows, H · (dn + dr)]; the gate of a
    /// dense MLP, [rows, its width].
    let larger: FloatBuffer
    /// The output gate of a linear layer, [rows, H · D]; the query latent of an MLA layer, [rows, its rank]; the up projection
    /// of a dense MLP, [rows, its width].
    let smaller: FloatBuffer
    /// Attention output before its projection, [rows, H · D] or [rows, H · dv].
    let attended: FloatBuffer
    /// New latents of an MLA layer, [rows, R + dr].
    let latent: FloatBuffer
    /// [rows, E]
    let routerLogits: FloatBuffer
    let router: FloatBuffer
    /// Weights and ids of the chosen experts, [rows, K].
    let expertWeights: FloatBuffer
    nonisolated(unsafe) let expertIDs: UnsafeMutablePointer<Int32>

    init(_ c: ModelConfiguration, maximumRows rows: Int, routerScratch: Int) {
        let linearWidth = c.headCount * c.headWidth
        let queryWidth = c.headCount * (c.nopeWidth + c.ropeWidth)
        hidden = FloatBuffer(rows * c.hiddenSize)
        normed = FloatBuffer(rows * c.hiddenSize)
        projected = FloatBuffer(rows * c.hiddenSize)
        cosine = FloatBuffer(rows * c.ropeWidth / 2)
        sine = FloatBuffer(rows * c.ropeWidth / 2)
        larger = FloatBuffer(rows * max(3 * linearWidth, queryWidth, c.intermediateSize))
        smaller = FloatBuffer(rows * max(linearWidth, c.queryRank ?? 0, c.intermediateSize))
        attended = FloatBuffer(rows * max(linearWidth, c.headCount * c.valueWidth))
        latent = FloatBuffer(rows * (c.latentWidth + c.ropeWidth))
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
            hidden, normed, projected, cosine, sine, larger, smaller, attended, latent, routerLogits, router,
            expertWeights,
        ]
        return buffers.reduce(0) { $0 + $1.byteCount } + expertWeights.byteCount
    }
}
