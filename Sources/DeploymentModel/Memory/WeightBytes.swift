import FusedMoE

/// Weights of one device, bytes: fp8 with an fp32 scale per output channel, the output head, embedding, absorbed W_kvb
/// and norms in bf16, the router in fp32 (docs/model.md#stored-numbers).
struct WeightBytes: Sendable, Equatable {
    let shape: ModelShape
    let layout: DeploymentLayout

    private func quantized(_ outputs: Int, _ inputs: Int) -> Int { outputs * (inputs + 4) }

    /// Attention of all layers.
    var attention: Int {
        let (tp, h) = (layout.tensorParallel, shape.hidden)
        let width = shape.heads * shape.headWidth / tp
        let linear = quantized(4 * width, h) + quantized(h, width) + 2 * (width + 2 * shape.headWidth)
        let heads = shape.heads / tp
        let query = heads * (shape.nopeWidth + shape.ropeWidth)
        let queries =
            shape.queryRank == 0
            ? quantized(query, h) : quantized(shape.queryRank, h) + quantized(query, shape.queryRank)
        let latent =
            queries + quantized(shape.latentWidth + shape.ropeWidth, h)
            + 2 * heads * (shape.nopeWidth + shape.valueWidth) * shape.latentWidth
            + quantized(h, heads * shape.valueWidth)
        return shape.linearLayers * linear + shape.latentLayers * latent + (2 * shape.layers + 1) * 2 * h
    }

    /// Dense MLPs.
    var dense: Int {
        let width = shape.denseIntermediate / layout.tensorParallel
        return shape.denseLayers * (quantized(2 * width, shape.hidden) + quantized(shape.hidden, width))
    }

    /// Embedding and output head.
    var vocabulary: Int {
        2 * 2 * ((shape.vocabulary + layout.tensorParallel - 1) / layout.tensorParallel) * shape.hidden
    }

    /// Routers: fp32, on every attention device.
    var router: Int { shape.expertLayers * 4 * shape.experts.experts * (shape.hidden + 1) }

    /// Routed experts of one expert device.
    var experts: Int {
        let e = shape.experts
        let one = quantized(2 * e.intermediate, e.hidden) + quantized(e.hidden, e.intermediate)
        return shape.expertLayers * e.experts / layout.expertDevices * one
    }

    /// Shared experts: on every expert device.
    var shared: Int {
        let e = shape.experts
        guard e.sharedIntermediate > 0 else { return 0 }
        return shape.expertLayers
            * (quantized(2 * e.sharedIntermediate, e.hidden) + quantized(e.hidden, e.sharedIntermediate))
    }
}
