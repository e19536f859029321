import Checkpoint
import Numerics

/// Weights of one linear (GLA) layer (docs/model.md#linear-attention).
struct LinearAttentionWeights {
    let queryKeyValue: WeightMatrix
    let queryNorm: UnsafePointer<Float>
    let keyNorm: UnsafePointer<Float>
    let gate: WeightMatrix
    let outputNorm: UnsafePointer<Float>
    let output: WeightMatrix
    /// λ = exp(g) of each head, [H].
    let decays: FloatBuffer

    init(_ tensors: TensorSet, layer: Int, _ c: ModelConfiguration) throws(CheckpointError) {
        let prefix = "model.layers.\(layer).attention."
        let width = c.headCount * c.headWidth
        queryKeyValue = try tensors.matrix(prefix + "query_key_value.weight", rows: 3 * width, columns: c.hiddenSize)
        queryNorm = try tensors.vector(prefix + "query_layernorm.weight", count: c.headWidth)
        keyNorm = try tensors.vector(prefix + "key_layernorm.weight", count: c.headWidth)
        gate = try tensors.matrix(prefix + "g_proj.weight", rows: width, columns: c.hiddenSize)
        outputNorm = try tensors.vector(prefix + "g_norm.weight", count: width)
        output = try tensors.matrix(
            prefix + "dense.weight", prefix + "o_proj.weight", rows: c.hiddenSize, columns: width)
        decays = FloatBuffer(c.headCount)
        for (head, slope) in DecaySlopes.slopes(layer: layer, configuration: c).enumerated() {
            decays.pointer[head] = Float(Kernels.exponential(Double(slope)))
        }
    }
}

/// Weights of one MLA layer (docs/model.md#latent-attention).
struct LatentAttentionWeights {
    /// W_qa and its norm, when the query has a rank.
    let queryDown: (matrix: WeightMatrix, norm: UnsafePointer<Float>)?
    /// W_qb, or W_q.
    let query: WeightMatrix
    let latent: WeightMatrix
    let latentNorm: UnsafePointer<Float>
    /// W_kvb [H (dn + dv), R].
    let expansion: WeightMatrix
    let output: WeightMatrix

    init(_ tensors: TensorSet, layer: Int, _ c: ModelConfiguration) throws(CheckpointError) {
        let prefix = "model.layers.\(layer).attention."
        let queryWidth = c.headCount * (c.nopeWidth + c.ropeWidth)
        if let rank = c.queryRank {
            queryDown = (
                try tensors.matrix(prefix + "q_a_proj.weight", rows: rank, columns: c.hiddenSize),
                try tensors.vector(prefix + "q_a_layernorm.weight", count: rank)
            )
            query = try tensors.matrix(prefix + "q_b_proj.weight", rows: queryWidth, columns: rank)
        } else {
            queryDown = nil
            query = try tensors.matrix(prefix + "q_proj.weight", rows: queryWidth, columns: c.hiddenSize)
        }
        latent = try tensors.matrix(
            prefix + "kv_a_proj_with_mqa.weight", rows: c.latentWidth + c.ropeWidth, columns: c.hiddenSize)
        latentNorm = try tensors.vector(prefix + "kv_a_layernorm.weight", count: c.latentWidth)
        expansion = try tensors.matrix(
            prefix + "kv_b_proj.weight", rows: c.headCount * (c.nopeWidth + c.valueWidth), columns: c.latentWidth)
        output = try tensors.matrix(
            prefix + "dense.weight", prefix + "o_proj.weight", rows: c.hiddenSize, columns: c.headCount * c.valueWidth)
    }
}

/// Gate, up and down of a SwiGLU.
struct FeedForwardWeights {
    let gate: WeightMatrix
    let up: WeightMatrix
    let down: WeightMatrix

    init(_ tensors: TensorSet, prefix: String, width: Int, hidden: Int) throws(CheckpointError) {
        gate = try tensors.matrix(prefix + "gate_proj.weight", rows: width, columns: hidden)
        up = try tensors.matrix(prefix + "up_proj.weight", rows: width, columns: hidden)
        down = try tensors.matrix(prefix + "down_proj.weight", rows: hidden, columns: width)
        guard up.elementType == gate.elementType else {
            throw CheckpointError(
                .tensor,
                "tensor \(prefix)up_proj.weight is stored as \(up.elementType.rawValue), gate_proj.weight as "
                    + "\(gate.elementType.rawValue); they must agree")
        }
    }
}

/// What follows attention in a layer, on the attention side.
enum MixerWeights {
    case dense(FeedForwardWeights)
    case routed(gate: WeightMatrix, bias: UnsafePointer<Float>?)

    init(_ tensors: TensorSet, layer: Int, _ c: ModelConfiguration) throws(CheckpointError) {
        let prefix = "model.layers.\(layer).mlp."
        guard !c.isDense(layer) else {
            self = .dense(
                try FeedForwardWeights(tensors, prefix: prefix, width: c.intermediateSize, hidden: c.hiddenSize))
            return
        }
        let gate = try tensors.matrix(prefix + "gate.weight", rows: c.expertCount, columns: c.hiddenSize)
        let bias =
            try c.hasExpertBias
            ? tensors.vector(
                prefix + "gate.expert_bias", prefix + "gate.e_score_correction_bias", count: c.expertCount) : nil
        self = .routed(gate: gate, bias: bias)
    }
}

/// The attention half of one layer.
enum AttentionWeights {
    case linear(LinearAttentionWeights, index: Int)
    case latent(LatentAttentionWeights, index: Int)
}

/// One layer as the attention service holds it.
struct LayerWeights {
    let inputNorm: UnsafePointer<Float>
    let attention: AttentionWeights
    let mixerNorm: UnsafePointer<Float>
    let mixer: MixerWeights

    init(_ tensors: TensorSet, layer: Int, _ c: ModelConfiguration) throws(CheckpointError) {
        let prefix = "model.layers.\(layer)."
        inputNorm = try tensors.vector(prefix + "input_layernorm.weight", count: c.hiddenSize)
        mixerNorm = try tensors.vector(prefix + "post_attention_layernorm.weight", count: c.hiddenSize)
        let before = 0..<layer
        if c.isFullAttention(layer) {
            let index = before.count(where: c.isFullAttention)
            attention = .latent(try LatentAttentionWeights(tensors, layer: layer, c), index: index)
        } else {
            let index = before.count(where: { !c.isFullAttention($0) })
            attention = .linear(try LinearAttentionWeights(tensors, layer: layer, c), index: index)
        }
        mixer = try MixerWeights(tensors, layer: layer, c)
    }
}
