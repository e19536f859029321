import Files
import Foundation

/// Which published layer factor the linear layers' decay uses (docs/model.md#decay).
public enum DecayConvention: String, Sendable {
    /// 1 - (i - 1) / (L - 1) + 1e-5: the publisher's modelling code.
    case a
    /// 1 - i / (L - 1) + 1e-5: SGLang, vLLM and Megatron-style training code.
    case b
}

/// Everything `config.json` says about a Bailing MoE V2.5 model (Ling-2.5/2.6, Ring-2.5), checked (docs/model.md#configuration).
public struct ModelConfiguration: Sendable, Equatable {
    /// Rows of the embedding and the output head (V).
    public let vocabularySize: Int
    /// Width of the residual stream (h).
    public let hiddenSize: Int
    /// Layers without MTP (L).
    public let layerCount: Int
    /// Attention heads of both layer kinds (H).
    public let headCount: Int
    /// Width of a linear-attention head (D).
    public let headWidth: Int
    /// Width of the dense SwiGLU.
    public let intermediateSize: Int
    /// Layers 0 ..< this have a dense MLP.
    public let denseLayerCount: Int
    /// Routed experts (E).
    public let expertCount: Int
    /// Experts per token (K).
    public let expertsPerToken: Int
    /// Width of one routed expert.
    public let expertIntermediateSize: Int
    /// Width of all shared experts together; 0 without one.
    public let sharedIntermediateSize: Int
    /// Expert groups; 1 when routing is not grouped.
    public let groupCount: Int
    /// Groups kept per token.
    public let keptGroupCount: Int
    /// Factor on the normalised routing weights.
    public let routedScalingFactor: Float
    /// True when the router has a selection bias per expert.
    public let hasExpertBias: Bool
    /// Every this many layers one is full attention (G).
    public let layerGroupSize: Int
    /// Groups of the linear layers' output norm.
    public let normGroupCount: Int
    /// Rank of the query projection, nil for a direct one.
    public let queryRank: Int?
    /// Width of the MLA latent (R).
    public let latentWidth: Int
    /// Query and key width without position (dn).
    public let nopeWidth: Int
    /// Query and key width with position (dr).
    public let ropeWidth: Int
    /// Value width (dv).
    public let valueWidth: Int
    /// Rotated dimensions of a linear head (rd).
    public let linearRopeWidth: Int
    /// Base of the rotary frequencies.
    public let ropeTheta: Double
    /// YaRN scaling, if any.
    public let yarn: YaRNScaling?
    /// Longest context the model is configured for.
    public let maximumPositions: Int
    /// ε of every norm but the two latent norms.
    public let normEpsilon: Float
    /// MTP layers after the last one.
    public let nextTokenLayerCount: Int
    /// Decay convention of the linear layers.
    public let decayConvention: DecayConvention
    /// Ids that end generation.
    public let endTokenIDs: [UInt32]
    /// Sentences about fields of `config.json` that are not used.
    public private(set) var notes: [String]

    /// ε of the two MLA latent norms, fixed in the publisher's code.
    public static let latentNormEpsilon: Float = 1e-6

    /// Reads `config.json` (and `generation_config.json` if present) of a checkpoint folder.
    ///
    /// - Throws: `CheckpointError` that names the file and the field.
    public init(directory: URL, decayConvention: DecayConvention = .a) throws(CheckpointError) {
        let file = directory.appendingPathComponent("config.json")
        guard OpenFile.isThere(file.path) else {
            let hint = FormatHint.sentence(inFolder: directory, without: "config.json")
            throw CheckpointError(.unreadable, "config.json is missing in \(directory.path)\(hint)")
        }
        try self.init(
            json: try readFile(file, limit: 1 << 20), generationJSON: try GenerationDefaults.text(directory),
            decayConvention: decayConvention,
            tokenID: TokenNames(directory).id)
    }

    /// Parses the text of `config.json`; refuses what docs/model.md#configuration does not have. Of `generation_config.json` it reads the
    /// ids that end generation. Tokens that are named by their text are asked of `tokenID`.
    ///
    /// - Throws: `CheckpointError` that names the field.
    public init(
        json: Data, generationJSON: Data? = nil, decayConvention: DecayConvention = .a,
        tokenID: @escaping (String) throws(CheckpointError) -> UInt32? = { _ throws(CheckpointError) in nil }
    ) throws(CheckpointError) {
        let fields = try ConfigurationFields(json: json, path: "config.json")
        notes = try ConfigurationRules.notes(fields)
        self.decayConvention = decayConvention
        vocabularySize = try fields.integer("vocab_size", in: 1...(1 << 20))
        hiddenSize = try fields.integer("hidden_size", in: 1...65536)
        layerCount = try fields.integer("num_hidden_layers", in: 2...512)
        headCount = try fields.integer("num_attention_heads", in: 1...512)
        headWidth = try fields.integer("head_dim", in: 2...1024, fallback: hiddenSize / headCount)
        intermediateSize = try fields.integer("intermediate_size", in: 1...262_144)
        denseLayerCount = try fields.integer("first_k_dense_replace", in: 0...layerCount, fallback: 0)
        expertCount = try fields.integer("num_experts", in: 2...4096)
        expertsPerToken = try fields.integer("num_experts_per_tok", in: 1...min(64, expertCount))
        expertIntermediateSize = try fields.integer("moe_intermediate_size", in: 1...65536)
        let shared = try fields.integer("num_shared_experts", in: 0...64, fallback: 0)
        let sharedWidth = try fields.integer(
            "moe_shared_expert_intermediate_size", in: 1...65536, fallback: expertIntermediateSize)
        sharedIntermediateSize = shared * sharedWidth
        let groups = try fields.integer("n_group", in: 0...expertCount, fallback: 0)
        groupCount = max(1, groups)
        guard expertCount % groupCount == 0, groupCount == 1 || expertCount / groupCount >= 2 else {
            throw fields.refuse("n_group", "must divide num_experts (\(expertCount)) into groups of at least two")
        }
        keptGroupCount = try fields.integer("topk_group", in: 0...groupCount, fallback: groupCount)
        guard groups == 0 || keptGroupCount * (expertCount / groupCount) >= expertsPerToken else {
            throw fields.refuse("topk_group", "keeps fewer experts than num_experts_per_tok (\(expertsPerToken))")
        }
        routedScalingFactor = Float(try fields.number("routed_scaling_factor", in: 0...1e4, fallback: 1))
        hasExpertBias = try fields.flag("moe_router_enable_expert_bias", fallback: true)
        layerGroupSize = try fields.integer("layer_group_size", in: 1...layerCount)
        normGroupCount = try fields.integer("group_norm_size", in: 1...(headCount * headWidth))
        guard headCount * headWidth % normGroupCount == 0 else {
            throw fields.refuse("group_norm_size", "must divide heads × head_dim (\(headCount * headWidth))")
        }
        queryRank =
            fields.value("q_lora_rank") == nil ? nil : try fields.integer("q_lora_rank", in: 1...65536)
        latentWidth = try fields.integer("kv_lora_rank", in: 1...8192)
        nopeWidth = try fields.integer("qk_nope_head_dim", in: 1...1024)
        ropeWidth = try fields.integer("qk_rope_head_dim", in: 2...1024)
        valueWidth = try fields.integer("v_head_dim", in: 1...1024)
        maximumPositions = try fields.integer("max_position_embeddings", in: 1...(1 << 24))
        let rotary = try RotaryFields(fields, maximumPositions: maximumPositions)
        (ropeTheta, yarn) = (rotary.theta, rotary.yarn)
        linearRopeWidth = Int(Double(headWidth) * rotary.partialFactor)
        guard linearRopeWidth % 2 == 0, linearRopeWidth == ropeWidth else {
            throw fields.refuse(
                "partial_rotary_factor",
                "gives \(linearRopeWidth) rotary dimensions, which must be even and equal qk_rope_head_dim (\(ropeWidth))"
            )
        }
        normEpsilon = Float(try fields.number("rms_norm_eps", in: 1e-12...1, fallback: 1e-6))
        nextTokenLayerCount = try fields.integer("num_nextn_predict_layers", in: 0...8, fallback: 0)
        let endTokens = EndTokens(vocabularySize: vocabularySize, tokenID: tokenID)
        var ends = Set(try endTokens.ids(fields))
        if let generationJSON {
            ends.formUnion(try endTokens.ids(ConfigurationFields(json: generationJSON, path: GenerationDefaults.file)))
        }
        endTokenIDs = ends.sorted()
        try ConfigurationRules.checkLayerKinds(fields, self)
        notes += rotary.notes
    }

    /// True when layer `layer` is MLA: the last of each group, and all of a trailing partial group (docs/model.md#configuration).
    public func isFullAttention(_ layer: Int) -> Bool {
        (layer + 1) % layerGroupSize == 0 || layer >= layerCount / layerGroupSize * layerGroupSize
    }

    /// True when layer `layer` has a dense MLP.
    public func isDense(_ layer: Int) -> Bool { layer < denseLayerCount }

    /// Layers with linear attention, ascending.
    public var linearLayers: [Int] { (0..<layerCount).filter { !isFullAttention($0) } }

    /// Layers with MLA, ascending.
    public var fullAttentionLayers: [Int] { (0..<layerCount).filter(isFullAttention) }
}
