import Checkpoint
import Foundation

/// A checkpoint of about 90 MiB in a folder of its own, nearly all of it experts, so that a service that held what it
/// does not own would show.
struct GeneratedCheckpoint {
    let folder: URL
    /// Bytes of all tensors.
    let byteCount: Int
    /// Bytes of the shared experts, which every experts process holds.
    let sharedBytes: Int

    private static var configuration: [String: Any] {
        [
            "architectures": ["BailingMoeV2_5ForCausalLM"], "vocab_size": 4096, "hidden_size": 256,
            "intermediate_size": 512, "num_hidden_layers": 8, "num_attention_heads": 4, "head_dim": 64,
            "rms_norm_eps": 1e-6, "max_position_embeddings": 2048, "rope_theta": 10_000, "partial_rotary_factor": 0.5,
            "num_experts": 32, "num_shared_experts": 1, "num_experts_per_tok": 4, "n_group": 4, "topk_group": 2,
            "moe_intermediate_size": 256, "first_k_dense_replace": 1, "moe_router_enable_expert_bias": true,
            "routed_scaling_factor": 2.5, "layer_group_size": 4, "group_norm_size": 4, "kv_lora_rank": 64,
            "q_lora_rank": NSNull(), "qk_rope_head_dim": 32, "qk_nope_head_dim": 32, "v_head_dim": 32,
            "num_nextn_predict_layers": 0, "eos_token_id": 1,
        ]
    }

    /// - changes: what its `config.json` says instead.
    init(_ changes: [String: Any] = [:]) throws {
        folder = FileManager.default.temporaryDirectory.appendingPathComponent("generated-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        let config = try JSONSerialization.data(withJSONObject: Self.configuration.merging(changes) { $1 })
        try config.write(to: folder.appendingPathComponent("config.json"))
        let tensors = Self.tensors(try ModelConfiguration(json: config))
        var (header, offset, shared): ([String: Any], Int, Int) = ([:], 0, 0)
        for (name, shape) in tensors {
            let count = 2 * shape.reduce(1, *)
            header[name] = ["dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + count]]
            offset += count
            if name.contains("shared_experts") { shared += count }
        }
        (byteCount, sharedBytes) = (offset, shared)
        let json = try JSONSerialization.data(withJSONObject: header, options: [.sortedKeys])
        let file = folder.appendingPathComponent("model.safetensors")
        let length = withUnsafeBytes(of: UInt64(json.count).littleEndian) { Data($0) }
        try (length + json + Self.noise(offset)).write(to: file)
    }

    func remove() { try? FileManager.default.removeItem(at: folder) }

    /// Small numbers of both signs in BF16; the same ones again and again after a prime number of them.
    private static func noise(_ count: Int) -> Data {
        var state: UInt32 = 1
        let block = (0..<4093).flatMap { _ -> [UInt8] in
            state = state &* 1_664_525 &+ 1_013_904_223
            let value = (Float(state >> 8) / Float(1 << 24) - 0.5) / 8
            return [
                UInt8(truncatingIfNeeded: value.bitPattern >> 16), UInt8(truncatingIfNeeded: value.bitPattern >> 24),
            ]
        }
        var data = Data(capacity: count)
        while data.count < count { data.append(contentsOf: block.prefix(count - data.count)) }
        return data
    }

    private static func tensors(_ c: ModelConfiguration) -> [(String, [Int])] {
        let h = c.hiddenSize
        var all = [
            ("model.word_embeddings.weight", [c.vocabularySize, h]), ("lm_head.weight", [c.vocabularySize, h]),
            ("model.norm.weight", [h]),
        ]
        func swiglu(_ prefix: String, _ width: Int) {
            all += [("gate_proj", [width, h]), ("up_proj", [width, h]), ("down_proj", [h, width])]
                .map { ("\(prefix)\($0.0).weight", $0.1) }
        }
        for layer in 0..<c.layerCount {
            let prefix = "model.layers.\(layer)."
            all += [(prefix + "input_layernorm.weight", [h]), (prefix + "post_attention_layernorm.weight", [h])]
            let isFull = c.fullAttentionLayers.contains(layer)
            all += (isFull ? latent(c) : linear(c)).map { ("\(prefix)attention.\($0.0).weight", $0.1) }
            guard !c.isDense(layer) else {
                swiglu(prefix + "mlp.", c.intermediateSize)
                continue
            }
            all += [
                (prefix + "mlp.gate.weight", [c.expertCount, h]), (prefix + "mlp.gate.expert_bias", [c.expertCount]),
            ]
            for expert in 0..<c.expertCount { swiglu(prefix + "mlp.experts.\(expert).", c.expertIntermediateSize) }
            swiglu(prefix + "mlp.shared_experts.", c.sharedIntermediateSize)
        }
        return all
    }

    private static func linear(_ c: ModelConfiguration) -> [(String, [Int])] {
        let width = c.headCount * c.headWidth
        return [
            ("query_key_value", [3 * width, c.hiddenSize]), ("g_proj", [width, c.hiddenSize]),
            ("dense", [c.hiddenSize, width]), ("query_layernorm", [c.headWidth]), ("key_layernorm", [c.headWidth]),
            ("g_norm", [width]),
        ]
    }

    private static func latent(_ c: ModelConfiguration) -> [(String, [Int])] {
        [
            ("q_proj", [c.headCount * (c.nopeWidth + c.ropeWidth), c.hiddenSize]),
            ("kv_a_proj_with_mqa", [c.latentWidth + c.ropeWidth, c.hiddenSize]), ("kv_a_layernorm", [c.latentWidth]),
            ("kv_b_proj", [c.headCount * (c.nopeWidth + c.valueWidth), c.latentWidth]),
            ("dense", [c.hiddenSize, c.headCount * c.valueWidth]),
        ]
    }
}
