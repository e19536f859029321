import JSON

/// What every field of `config.json` may say: read elsewhere, harmless, one of a few values, or refused. A field that is
/// not known becomes a note.
enum ConfigurationRules {
    /// Refuses what is another model than that of docs/model.md, and gives a sentence for every field that is not known.
    static func notes(_ fields: ConfigurationFields) throws(CheckpointError) -> [String] {
        try refuseOtherModels(fields)
        for (name, wanted) in flags { try fields.require(name, wanted, fallback: wanted) }
        for (name, wanted) in texts {
            if let text = try fields.text(name), text != wanted {
                throw fields.refuse(name, "must be \(wanted), not \(text)")
            }
        }
        try refuseOtherQuantization(fields)
        return try notesOnTheRest(fields)
    }

    private static func refuseOtherModels(_ fields: ConfigurationFields) throws(CheckpointError) {
        let served = "BailingMoeV2_5ForCausalLM"
        let type = try fields.text("model_type").map { " (model_type \($0))" } ?? ""
        guard case .array(let names) = fields.value("architectures"), case .string(let name) = names.first else {
            throw fields.refuse(
                "architectures", "names none\(type); Ironling serves \(served): Ling-2.5, Ling-2.6, Ring-2.5")
        }
        guard name == served else {
            throw fields.refuse(
                "architectures",
                "is \(name)\(type), which is not served; Ironling serves \(served): Ling-2.5, Ling-2.6, Ring-2.5")
        }
        for name in fields.members.map(\.name) where name == "short_conv_kernel_size" || name.hasPrefix("kda_") {
            throw fields.refuse(name, "belongs to Ling-3.0 (KDA layers), which is not supported")
        }
        if fields.value("layers_block_type") != nil {
            throw fields.refuse("layers_block_type", "is not supported; layer kinds follow layer_group_size")
        }
    }

    private static func refuseOtherQuantization(_ fields: ConfigurationFields) throws(CheckpointError) {
        for name in ["quantization_config", "compression_config"] {
            guard let inner = try fields.object(name) else { continue }
            let (method, format) = (try inner.text("quant_method"), try inner.text("format"))
            guard method == "compressed-tensors", format == "float-quantized" else {
                let given = [method, format].compactMap { $0 }.joined(separator: ", ")
                throw inner.refuse(
                    "quant_method",
                    "must be compressed-tensors with format float-quantized (FP8), not \(given.isEmpty ? "missing" : given): "
                        + "take the BF16 or FP8 checkpoint")
            }
        }
        if fields.value("quantization") != nil {
            throw fields.refuse("quantization", "is MLX's, which is not supported: take the BF16 or FP8 checkpoint")
        }
    }

    /// Newer files spell out the kinds of the layers; they must be the ones that follow from the other fields.
    static func checkLayerKinds(
        _ fields: ConfigurationFields, _ configuration: ModelConfiguration
    ) throws(CheckpointError) {
        let kinds = (0..<configuration.layerCount).map { layer -> JSONValue in
            .string(configuration.isFullAttention(layer) ? "full_attention" : "linear_attention")
        }
        let blocks = (0..<configuration.layerCount).map { layer -> JSONValue in
            .string(configuration.isDense(layer) ? "dense" : "sparse")
        }
        for (name, wanted, from) in [
            ("layer_types", kinds, "layer_group_size"), ("mlp_layer_types", blocks, "first_k_dense_replace"),
        ] {
            guard let given = fields.value(name), given != .array(wanted) else { continue }
            throw fields.refuse(name, "contradicts the layers that follow from \(from)")
        }
        for (name, wanted) in [
            ("n_routed_experts", configuration.expertCount),
            ("qk_head_dim", configuration.nopeWidth + configuration.ropeWidth),
        ] where fields.value(name) != nil { _ = try fields.integer(name, in: wanted...wanted) }
    }

    // MARK: The other fields

    private static let flags = [
        ("linear_silu", false), ("use_linear_silu", false), ("linear_rope", true), ("rope_interleave", true),
        ("use_qk_norm", true), ("use_bias", false), ("use_qkv_bias", false), ("tie_word_embeddings", false),
        ("norm_topk_prob", true), ("attention_bias", false), ("mlp_bias", false), ("use_sliding_window", false),
        ("use_rmsnorm", true), ("is_encoder_decoder", false), ("add_cross_attention", false), ("norm_head", false),
        ("norm_softmax", false), ("multi_gate", false),
    ]

    private static let texts = [
        ("hidden_act", "silu"), ("score_function", "sigmoid"), ("scoring_func", "sigmoid"),
        ("full_attention_type", "mla"), ("topk_method", "noaux_tc"), ("router_dtype", "fp32"),
    ]

    /// Fields that would change logits, with the only value that asks for what happens anyway.
    private static let neutral: [String: Double?] = [
        "attn_logit_softcapping": nil, "attention_multiplier": nil, "embedding_multiplier": 1,
        "final_logit_softcapping": nil, "logit_scale": 1, "logits_scaling": 1, "query_pre_attn_scalar": nil,
        "residual_multiplier": 1,
    ]

    private static let read: Set = [
        "architectures", "compression_config", "eos_token_id", "first_k_dense_replace", "group_norm_size", "head_dim",
        "hidden_size", "intermediate_size", "kv_lora_rank", "layer_group_size", "layer_types",
        "max_position_embeddings", "mlp_layer_types", "moe_intermediate_size", "moe_router_enable_expert_bias",
        "moe_shared_expert_intermediate_size", "n_group", "n_routed_experts", "num_attention_heads", "num_experts",
        "num_experts_per_tok", "num_hidden_layers", "num_nextn_predict_layers", "num_shared_experts",
        "partial_rotary_factor", "q_lora_rank", "qk_head_dim", "qk_nope_head_dim", "qk_rope_head_dim",
        "quantization_config", "rms_norm_eps", "rope_parameters", "rope_scaling", "rope_theta",
        "routed_scaling_factor", "topk_group", "v_head_dim", "vocab_size",
    ]

    /// Fields about training, Python or other files: tensors say their types themselves, heads of the linear layers are
    /// never grouped, and beginning and padding are the tokenizer's.
    private static let harmless: Set = [
        "_attn_implementation", "_name_or_path", "attention_dropout", "attn_implementation", "auto_map",
        "aux_loss_alpha", "bos_token_id", "chunk_size_feed_forward", "dtype", "embedding_dropout", "ep_size",
        "gradient_checkpointing", "hidden_dropout", "hidden_dropout_prob", "id2label", "initializer_range", "label2id",
        "max_window_layers", "model_type", "mtp_loss_scaling_factor", "num_key_value_heads", "output_attentions",
        "output_dropout", "output_hidden_states", "output_router_logits", "pad_token_id", "pretraining_tp",
        "problem_type", "return_dict", "rotary_dim", "router_aux_loss_coef", "seq_aux", "sliding_window", "torch_dtype",
        "transformers_version", "use_cache",
    ]

    private static func notesOnTheRest(_ fields: ConfigurationFields) throws(CheckpointError) -> [String] {
        let checked = Set(flags.map(\.0) + texts.map(\.0))
        var notes: [String] = []
        for member in fields.members where member.value != .null {
            let name = member.name
            guard !read.contains(name), !harmless.contains(name), !checked.contains(name) else { continue }
            if let wanted = neutral[name] {
                guard wanted == nil || member.value.double != wanted else { continue }
                throw fields.refuse(name, "is \(ConfigurationFields.shown(member.value)), which is not supported")
            }
            notes.append("config.json: \(name.prefix(64)) is not known and not used")
        }
        return notes
    }
}
