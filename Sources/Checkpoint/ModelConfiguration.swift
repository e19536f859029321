import Foundation

/// YaRN position scaling (spec section 6).
public struct YaRNScaling: Sendable, Equatable {
    /// Context extension factor.
    public let factor: Double
    /// Context length the model was trained at.
    public let originalMaximumPositions: Int
    /// Rotations above which a dimension keeps its frequency.
    public let betaFast: Double
    /// Rotations below which a dimension is interpolated.
    public let betaSlow: Double
    /// Magnitude scale of cosine and sine, with `magnitudeScaleAllDimensions`.
    public let magnitudeScale: Double?
    /// Magnitude scale that also enters the MLA softmax scale.
    public let magnitudeScaleAllDimensions: Double?
}

/// Which published layer factor the linear layers' decay uses (spec section 5.1).
public enum DecayConvention: String, Sendable {
    /// 1 - (i - 1) / (L - 1) + 1e-5: the publisher's modelling code.
    case a
    /// 1 - i / (L - 1) + 1e-5: SGLang, vLLM and Megatron-style training code.
    case b
}

/// Everything `config.json` says about a Bailing MoE V2.5 model (Ling-2.5/2.6, Ring-2.5), checked (spec section 2).
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

    /// ε of the two MLA latent norms, fixed in the publisher's code.
    public static let latentNormEpsilon: Float = 1e-6

    /// Reads `config.json` (and `generation_config.json` if present) of a checkpoint folder.
    public init(directory: URL, decayConvention: DecayConvention = .a) throws(CheckpointError) {
        let data = try readFile(directory.appendingPathComponent("config.json"), limit: 1 << 20)
        let generation = try? readFile(directory.appendingPathComponent("generation_config.json"), limit: 1 << 20)
        try self.init(json: data, generationJSON: generation, decayConvention: decayConvention)
    }

    /// Parses the text of `config.json`; refuses what the spec says to refuse.
    public init(
        json: Data, generationJSON: Data? = nil, decayConvention: DecayConvention = .a
    ) throws(CheckpointError) {
        let fields = try ConfigurationFields(json: json, path: "config.json")
        try Self.refuseOtherModels(fields)
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
        let factor = try fields.number("partial_rotary_factor", in: 0.001...1, fallback: 1)
        linearRopeWidth = Int(Double(headWidth) * factor)
        guard linearRopeWidth % 2 == 0, linearRopeWidth == ropeWidth else {
            throw fields.refuse(
                "partial_rotary_factor",
                "gives \(linearRopeWidth) rotary dimensions, which must be even and equal qk_rope_head_dim (\(ropeWidth))"
            )
        }
        ropeTheta = try fields.number("rope_theta", in: 1.0001...1e12)
        maximumPositions = try fields.integer("max_position_embeddings", in: 1...(1 << 24))
        yarn = try Self.scaling(fields, maximumPositions: maximumPositions)
        normEpsilon = Float(try fields.number("rms_norm_eps", in: 1e-12...1, fallback: 1e-6))
        nextTokenLayerCount = try fields.integer("num_nextn_predict_layers", in: 0...8, fallback: 0)
        endTokenIDs = try Self.endTokens(fields, generationJSON, vocabularySize: vocabularySize)
    }

    /// True when layer `layer` is MLA: the last of each group, and all of a trailing partial group (spec section 2).
    public func isFullAttention(_ layer: Int) -> Bool {
        (layer + 1) % layerGroupSize == 0 || layer >= layerCount / layerGroupSize * layerGroupSize
    }

    /// True when layer `layer` has a dense MLP.
    public func isDense(_ layer: Int) -> Bool { layer < denseLayerCount }

    /// Layers with linear attention, ascending.
    public var linearLayers: [Int] { (0..<layerCount).filter { !isFullAttention($0) } }

    /// Layers with MLA, ascending.
    public var fullAttentionLayers: [Int] { (0..<layerCount).filter(isFullAttention) }

    private static func refuseOtherModels(_ fields: ConfigurationFields) throws(CheckpointError) {
        let architecture = (fields.value("architectures") as? [String])?.first ?? "none"
        guard architecture == "BailingMoeV2_5ForCausalLM" else {
            throw fields.refuse("architectures", "must be BailingMoeV2_5ForCausalLM, not \(architecture)")
        }
        for name in fields.object.keys.sorted() where name == "short_conv_kernel_size" || name.hasPrefix("kda_") {
            throw fields.refuse(name, "belongs to Ling-3.0 (KDA layers), which is not supported")
        }
        try fields.require("linear_silu", false, fallback: false)
        try fields.require("use_linear_silu", false, fallback: false)
        try fields.require("linear_rope", true, fallback: true)
        try fields.require("rope_interleave", true, fallback: true)
        try fields.require("use_qk_norm", true, fallback: true)
        try fields.require("use_bias", false, fallback: false)
        try fields.require("use_qkv_bias", false, fallback: false)
        try fields.require("tie_word_embeddings", false, fallback: false)
        try fields.require("norm_topk_prob", true, fallback: true)
        for (name, wanted) in [
            ("hidden_act", "silu"), ("score_function", "sigmoid"), ("scoring_func", "sigmoid"),
            ("full_attention_type", "mla"), ("topk_method", "noaux_tc"), ("router_dtype", "fp32"),
        ] {
            if let text = try fields.text(name), text != wanted {
                throw fields.refuse(name, "must be \(wanted), not \(text)")
            }
        }
        if fields.value("layers_block_type") != nil {
            throw fields.refuse("layers_block_type", "is not supported; layer kinds follow layer_group_size")
        }
        try refuseOtherQuantization(fields)
    }

    private static func refuseOtherQuantization(_ fields: ConfigurationFields) throws(CheckpointError) {
        for name in ["quantization_config", "compression_config"] {
            guard let object = fields.value(name) as? [String: Any] else { continue }
            let inner = ConfigurationFields(object: object, path: "config.json: \(name)")
            guard try inner.text("quant_method") == "compressed-tensors", try inner.text("format") == "float-quantized"
            else {
                throw inner.refuse("quant_method", "must be compressed-tensors with format float-quantized")
            }
        }
    }

    private static func scaling(
        _ fields: ConfigurationFields, maximumPositions: Int
    ) throws(CheckpointError) -> YaRNScaling? {
        guard let raw = fields.value("rope_scaling") else { return nil }
        guard let object = raw as? [String: Any] else { throw fields.refuse("rope_scaling", "must be an object") }
        let inner = ConfigurationFields(object: object, path: "config.json: rope_scaling")
        let (current, legacy) = (try inner.text("rope_type"), try inner.text("type"))
        let kind = current ?? legacy ?? "missing"
        guard kind != "default" else { return nil }
        guard kind == "yarn" else { throw inner.refuse("rope_type", "must be yarn, not \(kind)") }
        func optional(_ name: String) throws(CheckpointError) -> Double? {
            guard inner.value(name) != nil else { return nil }
            let number = try inner.number(name, in: 0...100)
            return number == 0 ? nil : number
        }
        return YaRNScaling(
            factor: try inner.number("factor", in: 1...4096),
            originalMaximumPositions: try inner.integer(
                "original_max_position_embeddings", in: 1...(1 << 24), fallback: maximumPositions),
            betaFast: try inner.number("beta_fast", in: 0.001...1e6, fallback: 32),
            betaSlow: try inner.number("beta_slow", in: 0.001...1e6, fallback: 1),
            magnitudeScale: try optional("mscale"),
            magnitudeScaleAllDimensions: try optional("mscale_all_dim"))
    }

    private static func endTokens(
        _ fields: ConfigurationFields, _ generationJSON: Data?, vocabularySize: Int
    ) throws(CheckpointError) -> [UInt32] {
        var sources = [fields]
        if let generationJSON {
            sources.append(try ConfigurationFields(json: generationJSON, path: "generation_config.json"))
        }
        var ids: Set<UInt32> = []
        for source in sources {
            guard let raw = source.value("eos_token_id") else { continue }
            for number in (raw as? [NSNumber]) ?? (raw as? NSNumber).map({ [$0] }) ?? [] {
                guard (0..<vocabularySize).contains(number.intValue) else {
                    throw source.refuse("eos_token_id", "must be below vocab_size (\(vocabularySize)), not \(number)")
                }
                ids.insert(UInt32(number.intValue))
            }
        }
        return ids.sorted()
    }
}

/// The bytes of a small file, or an error that names it.
func readFile(_ url: URL, limit: Int) throws(CheckpointError) -> Data {
    guard let size = (try? FileManager.default.attributesOfItem(atPath: url.path))?[.size] as? Int else {
        throw CheckpointError(
            .unreadable, "\(url.lastPathComponent) is missing in \(url.deletingLastPathComponent().path)")
    }
    guard size <= limit else {
        throw CheckpointError(.unreadable, "\(url.lastPathComponent) has \(size) bytes, the limit is \(limit)")
    }
    guard let data = try? Data(contentsOf: url) else {
        throw CheckpointError(.unreadable, "\(url.lastPathComponent) cannot be read")
    }
    return data
}
