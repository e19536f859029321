import Checkpoint
import HybridModel

/// What a step must read and compute, counted from the checkpoint's tensors and from what was actually routed.
struct Workload {
    private let configuration: ModelConfiguration
    /// Bytes of the weights that every step reads once: all but embedding rows and routed experts.
    private let commonBytes: Int
    /// Multiply-adds of one row in those weights, without the head.
    private let commonProducts: Int
    private let headProducts: Int
    /// Bytes of one routed expert of one layer.
    private let expertBytes: Int
    private let embeddingRowBytes: Int

    init(_ checkpoint: Checkpoint) {
        let c = checkpoint.configuration
        configuration = c
        var (common, products, expert) = (0, 0, 0)
        for (name, location) in checkpoint.tensors where name != "model.word_embeddings.weight" {
            let entry = location.entry
            let isMatrix = entry.shape.count == 2 && !name.hasSuffix("_scale")
            if name.contains(".mlp.experts.") {
                expert += entry.byteCount
            } else {
                common += entry.byteCount
                if isMatrix, name != "lm_head.weight" { products += entry.shape.reduce(1, *) }
            }
        }
        commonBytes = common
        commonProducts = products
        headProducts = c.vocabularySize * c.hiddenSize
        expertBytes = expert / max(1, (c.layerCount - c.denseLayerCount) * c.expertCount)
        embeddingRowBytes =
            (checkpoint.tensors["model.word_embeddings.weight"]?.entry.byteCount ?? 0) / c.vocabularySize
    }

    /// Bytes a decode step touches: weights once, each distinct (layer, expert) once, and per row an embedding row, the
    /// recurrent states (read and written) and the latents of its context.
    func decodeBytes(rows: Int, context: Int, distinctExperts: Double) -> Double {
        let c = configuration
        let states = 2 * 4 * c.linearLayers.count * c.headCount * c.headWidth * c.headWidth
        let latents = 4 * c.fullAttentionLayers.count * context * (c.latentWidth + c.ropeWidth)
        return Double(commonBytes) + distinctExperts * Double(expertBytes)
            + Double(rows * (embeddingRowBytes + states + latents))
    }

    /// Floating point operations of a prompt of `tokens` from position 0, a multiply-add as two: the least that any form of
    /// the attentions needs (docs/model.md#many-tokens-at-once, docs/model.md#latent-attention), with only the causal half
    /// of the scores, and the head for the last row alone.
    func prefillFlops(tokens: Int) -> Double {
        let c = configuration
        let routed =
            (c.layerCount - c.denseLayerCount) * c.expertsPerToken * 3 * c.hiddenSize
            * c.expertIntermediateSize
        let chunk = 64
        let linear = c.headCount * (2 * c.headWidth * c.headWidth + chunk * c.headWidth)
        let latent = c.headCount * tokens / 2 * (c.nopeWidth + c.ropeWidth + c.valueWidth)
        let perToken =
            commonProducts + routed + c.linearLayers.count * linear + c.fullAttentionLayers.count * latent
        return 2 * (Double(tokens) * Double(perToken) + Double(headProducts))
    }
}
