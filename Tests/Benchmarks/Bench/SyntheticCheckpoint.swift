import Checkpoint
import Foundation
import Numerics
import RandomNumbers

/// A checkpoint with the published format and seeded random weights: large enough that no cache holds what a step reads.
/// Tensors are written one after the other, so that it takes no memory to make.
struct SyntheticCheckpoint {
    static let seed: UInt64 = 0x1207

    let directory: URL
    let type: ElementType

    /// One tensor of the file.
    private struct Tensor {
        enum Content {
            case ones
            case matrix
            case rowScales
            case bias
        }

        let name: String
        let shape: [Int]
        let storedType: String
        let content: Content

        var byteCount: Int {
            shape.reduce(1, *) * (SafetensorsHeader.elementByteCount(storedType) ?? 0)
        }
    }

    /// Makes the checkpoint under `folder`, unless it is there already.
    init(type: ElementType, in folder: URL, _ progress: Progress) throws {
        self.type = type
        directory = folder.appendingPathComponent("checkpoint-\(type.rawValue)")
        let config = Data(Self.configuration(type).utf8)
        let done = directory.appendingPathComponent("complete")
        let stamp = config + Data("seed \(Self.seed)".utf8)
        guard (try? Data(contentsOf: done)) != stamp else { return }
        progress("writing a \(type.rawValue) checkpoint with random weights to \(directory.path)")
        try? FileManager.default.removeItem(at: directory)
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        try config.write(to: directory.appendingPathComponent("config.json"))
        let parsed = try ModelConfiguration(json: config)
        try write(Self.tensors(parsed, type))
        try stamp.write(to: done)
    }

    // MARK: Shape

    /// Ling-2.6 in small: layers in groups of four, the last of each MLA; grouped routing; the first layer dense.
    static func configuration(_ type: ElementType) -> String {
        let quantization =
            type == .float8E4M3
            ? """
            , "quantization_config": {"quant_method": "compressed-tensors", "format": "float-quantized",
             "ignore": ["lm_head"], "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 8,
             "type": "float", "strategy": "channel", "symmetric": true, "dynamic": false}, "input_activations":
             {"num_bits": 8, "type": "float", "strategy": "token", "symmetric": true, "dynamic": true},
             "output_activations": null}}}
            """ : ""
        return """
            {"architectures": ["BailingMoeV2_5ForCausalLM"], "model_type": "bailing_hybrid", "vocab_size": 32768,
             "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 8, "num_attention_heads": 8,
             "num_key_value_heads": 8, "head_dim": 128, "hidden_act": "silu", "use_qkv_bias": false,
             "use_bias": false, "rms_norm_eps": 1e-06, "tie_word_embeddings": false,
             "max_position_embeddings": 8192, "rope_theta": 6000000, "rope_scaling": null,
             "partial_rotary_factor": 0.5, "num_experts": 32, "num_shared_experts": 1, "num_experts_per_tok": 4,
             "n_group": 4, "topk_group": 2, "moe_intermediate_size": 256,
             "moe_shared_expert_intermediate_size": 256, "first_k_dense_replace": 1, "use_qk_norm": true,
             "moe_router_enable_expert_bias": true, "routed_scaling_factor": 2.5, "norm_topk_prob": true,
             "score_function": "sigmoid", "scoring_func": "sigmoid", "topk_method": "noaux_tc",
             "router_dtype": "fp32", "layer_group_size": 4, "group_norm_size": 4, "linear_silu": false,
             "kv_lora_rank": 512, "q_lora_rank": 384, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128,
             "v_head_dim": 128, "rope_interleave": true, "num_nextn_predict_layers": 0, "pad_token_id": 0,
             "eos_token_id": 1, "torch_dtype": "bfloat16"\(quantization)}
            """
    }

    private static func tensors(_ c: ModelConfiguration, _ type: ElementType) -> [Tensor] {
        var tensors: [Tensor] = []
        func plain(_ name: String, _ shape: [Int], _ content: Tensor.Content) {
            tensors.append(Tensor(name: name, shape: shape, storedType: "BF16", content: content))
        }
        func linear(_ name: String, _ rows: Int, _ columns: Int) {
            let stored = type == .float8E4M3 ? "F8_E4M3" : type == .bfloat16 ? "BF16" : "F32"
            tensors.append(
                Tensor(name: name + ".weight", shape: [rows, columns], storedType: stored, content: .matrix))
            guard type == .float8E4M3 else { return }
            tensors.append(
                Tensor(name: name + ".weight_scale", shape: [rows, 1], storedType: "F32", content: .rowScales))
        }
        func swiglu(_ prefix: String, _ width: Int) {
            linear(prefix + "gate_proj", width, c.hiddenSize)
            linear(prefix + "up_proj", width, c.hiddenSize)
            linear(prefix + "down_proj", c.hiddenSize, width)
        }
        plain("model.word_embeddings.weight", [c.vocabularySize, c.hiddenSize], .matrix)
        plain("lm_head.weight", [c.vocabularySize, c.hiddenSize], .matrix)
        plain("model.norm.weight", [c.hiddenSize], .ones)
        for layer in 0..<c.layerCount {
            let prefix = "model.layers.\(layer)."
            plain(prefix + "input_layernorm.weight", [c.hiddenSize], .ones)
            plain(prefix + "post_attention_layernorm.weight", [c.hiddenSize], .ones)
            attention(prefix + "attention.", layer, c, plain, linear)
            guard !c.isDense(layer) else {
                swiglu(prefix + "mlp.", c.intermediateSize)
                continue
            }
            plain(prefix + "mlp.gate.weight", [c.expertCount, c.hiddenSize], .matrix)
            plain(prefix + "mlp.gate.expert_bias", [c.expertCount], .bias)
            for expert in 0..<c.expertCount { swiglu(prefix + "mlp.experts.\(expert).", c.expertIntermediateSize) }
            swiglu(prefix + "mlp.shared_experts.", c.sharedIntermediateSize)
        }
        return tensors
    }

    private static func attention(
        _ prefix: String, _ layer: Int, _ c: ModelConfiguration, _ plain: (String, [Int], Tensor.Content) -> Void,
        _ linear: (String, Int, Int) -> Void
    ) {
        let width = c.headCount * c.headWidth
        guard c.fullAttentionLayers.contains(layer) else {
            linear(prefix + "query_key_value", 3 * width, c.hiddenSize)
            linear(prefix + "g_proj", width, c.hiddenSize)
            linear(prefix + "dense", c.hiddenSize, width)
            plain(prefix + "query_layernorm.weight", [c.headWidth], .ones)
            plain(prefix + "key_layernorm.weight", [c.headWidth], .ones)
            plain(prefix + "g_norm.weight", [width], .ones)
            return
        }
        let queryWidth = c.headCount * (c.nopeWidth + c.ropeWidth)
        if let rank = c.queryRank {
            linear(prefix + "q_a_proj", rank, c.hiddenSize)
            plain(prefix + "q_a_layernorm.weight", [rank], .ones)
            linear(prefix + "q_b_proj", queryWidth, rank)
        } else {
            linear(prefix + "q_proj", queryWidth, c.hiddenSize)
        }
        linear(prefix + "kv_a_proj_with_mqa", c.latentWidth + c.ropeWidth, c.hiddenSize)
        plain(prefix + "kv_a_layernorm.weight", [c.latentWidth], .ones)
        linear(prefix + "kv_b_proj", c.headCount * (c.nopeWidth + c.valueWidth), c.latentWidth)
        linear(prefix + "dense", c.hiddenSize, c.headCount * c.valueWidth)
    }

    // MARK: Bytes

    private func write(_ tensors: [Tensor]) throws {
        var header: [String: Any] = [:]
        var offset = 0
        for tensor in tensors {
            header[tensor.name] = [
                "dtype": tensor.storedType, "shape": tensor.shape, "data_offsets": [offset, offset + tensor.byteCount],
            ]
            offset += tensor.byteCount
        }
        var json = try JSONSerialization.data(withJSONObject: header, options: [.sortedKeys])
        json += Data(repeating: UInt8(ascii: " "), count: (64 - (json.count + 8) % 64) % 64)
        let file = directory.appendingPathComponent("model.safetensors")
        try Data().write(to: file)
        let handle = try FileHandle(forWritingTo: file)
        defer { try? handle.close() }
        try handle.write(contentsOf: withUnsafeBytes(of: UInt64(json.count).littleEndian) { Data($0) } + json)
        var random = SplitMix64(seed: Self.seed)
        for tensor in tensors { try handle.write(contentsOf: Self.bytes(tensor, &random)) }
    }

    private static func bytes(_ tensor: Tensor, _ random: inout SplitMix64) -> Data {
        // uniform weights of variance 1 / in, so that activations keep their size from layer to layer
        let bound = (3 / Float(tensor.shape.last ?? 1)).squareRoot()
        var data = Data(count: tensor.byteCount)
        data.withUnsafeMutableBytes { raw in
            let count = tensor.shape.reduce(1, *)
            for index in 0..<count {
                let value: Float =
                    switch tensor.content {
                    case .ones: 1
                    case .matrix: bound * random.uniform()
                    case .rowScales: 0.002
                    case .bias: 0.02 * random.uniform()
                    }
                switch tensor.storedType {
                case "BF16": raw.storeBytes(of: BFloat16(value).bitPattern, toByteOffset: 2 * index, as: UInt16.self)
                case "F32": raw.storeBytes(of: value, toByteOffset: 4 * index, as: Float.self)
                default:
                    raw.storeBytes(of: Float8E4M3(value / 0.002).bitPattern, toByteOffset: index, as: UInt8.self)
                }
            }
        }
        return data
    }
}

extension SplitMix64 {
    /// A number in [-1, 1).
    mutating func uniform() -> Float { Float(Int32(truncatingIfNeeded: next())) * 0x1p-31 }
}
