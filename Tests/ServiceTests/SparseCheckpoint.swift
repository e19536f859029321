import Checkpoint
import Foundation
import Glibc

/// A checkpoint of the shape of Ling-2.6-flash in BF16: real headers in one file per layer, and holes for weights.
final class SparseCheckpoint {
    private static var configuration: [String: Any] {
        [
            "architectures": ["BailingMoeV2_5ForCausalLM"], "model_type": "bailing_hybrid", "vocab_size": 157_184,
            "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "head_dim": 128,
            "intermediate_size": 9216, "first_k_dense_replace": 1, "num_experts": 256, "num_experts_per_tok": 8,
            "num_shared_experts": 1, "moe_intermediate_size": 1024, "n_group": 8, "topk_group": 4,
            "routed_scaling_factor": 2.5, "layer_group_size": 8, "group_norm_size": 4, "q_lora_rank": 1536,
            "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
            "partial_rotary_factor": 0.5, "rope_theta": 6_000_000, "max_position_embeddings": 131_072,
            "eos_token_id": 156_892,
        ]
    }

    let url: URL

    init() throws {
        url = FileManager.default.temporaryDirectory.appendingPathComponent("sparse-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
        try JSONSerialization.data(withJSONObject: Self.configuration).write(
            to: url.appendingPathComponent("config.json"))
        var map: [String: String] = [:]
        for layer in 0..<32 {
            let name = "model-\(layer + 1)-of-32.safetensors"
            let tensors = Self.tensors(layer)
            for tensor in tensors { map[tensor.name] = name }
            try write(tensors, name)
        }
        try JSONSerialization.data(withJSONObject: ["weight_map": map])
            .write(to: url.appendingPathComponent("model.safetensors.index.json"))
    }

    deinit { try? FileManager.default.removeItem(at: url) }

    private static func tensors(_ layer: Int) -> [(name: String, shape: [Int])] {
        let prefix = "model.layers.\(layer)."
        var tensors: [(name: String, shape: [Int])] = [
            (prefix + "input_layernorm.weight", [4096]), (prefix + "attention.dense.weight", [4096, 4096]),
            (prefix + "attention.query_key_value.weight", [12288, 4096]),
        ]
        if layer == 0 {
            tensors += [
                ("model.word_embeddings.weight", [157_184, 4096]), ("lm_head.weight", [157_184, 4096]),
                ("model.norm.weight", [4096]),
            ]
        }
        for expert in 0..<256 {
            let expertPrefix = prefix + "mlp.experts.\(expert)."
            tensors += [
                (expertPrefix + "gate_proj.weight", [1024, 4096]), (expertPrefix + "up_proj.weight", [1024, 4096]),
                (expertPrefix + "down_proj.weight", [4096, 1024]),
            ]
        }
        return tensors
    }

    private func write(_ tensors: [(name: String, shape: [Int])], _ name: String) throws {
        var object: [String: Any] = [:]
        var end = 0
        for tensor in tensors {
            let start = end
            end += tensor.shape.reduce(2, *)
            object[tensor.name] = ["dtype": "BF16", "shape": tensor.shape, "data_offsets": [start, end]]
        }
        let json = try JSONSerialization.data(withJSONObject: object)
        let file = url.appendingPathComponent(name)
        try (withUnsafeBytes(of: UInt64(json.count).littleEndian) { Data($0) } + json).write(to: file)
        guard truncate(file.path, off_t(8 + json.count + end)) == 0 else { throw POSIXError(.EFBIG) }
    }
}
