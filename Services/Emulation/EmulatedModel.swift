import Checkpoint
import DeploymentModel
import Files
import Foundation
import FusedMoE
import Numerics
import ServiceSupport

/// A model of which only the shape is there: a published one by its name, or the one that a folder's `config.json`
/// describes. No weights are read.
public struct EmulatedModel: Sendable {
    /// "ling-2.6-1t", or the folder's name.
    public let name: String
    /// What `config.json` says, or would say.
    public let configuration: ModelConfiguration
    /// What decides the cost of a step.
    public let shape: ModelShape
    /// Services whose fingerprints differ do not emulate the same model, and none serves a real one.
    public let fingerprint: String

    /// - Throws: `UsageError` or `CheckpointError` with the sentence to print.
    public init(_ model: String) throws {
        let json: Data
        if let known = PublishedConfigurations.json[model] {
            json = Data(known.utf8)
            name = model
        } else {
            do {
                let folder = try ModelFolder(model)
                json = Data(try OpenFile.content(folder.file("config.json").path, limit: 1 << 20))
                name = folder.name
            } catch {
                let names = PublishedConfigurations.json.keys.sorted().joined(separator: ", ")
                throw UsageError("--model is \(names) or a folder with a config.json, not \"\(model)\": \(error)")
            }
        }
        configuration = try ModelConfiguration(json: json)
        var shape = ModelShape(name: name, configuration)
        // Widths that the kernel does not accept are rounded up to whole lanes, as the experts service does.
        let problem = MoEProblem(
            shape: shape.experts, tokens: 1, devices: 1,
            quantization: Quantization(weights: .float8E4M3, tokens: .bfloat16))
        if (try? problem.validated()) == nil { shape.experts = shape.experts.paddedToLanes }
        self.shape = shape
        fingerprint = "emulated \(name) \(String(Self.hash(json), radix: 16))"
    }

    /// Name under which it is served unless another is given: nobody should take its text for an answer.
    public var servedName: String { "\(name)-emulated" }

    /// FNV-1a.
    private static func hash(_ data: Data) -> UInt64 {
        data.reduce(0xCBF2_9CE4_8422_2325) { ($0 ^ UInt64($1)) &* 0x100_0000_01B3 }
    }
}

/// `config.json` of the published models as far as it is known (docs/model.md); it has been public only in parts.
enum PublishedConfigurations {
    static let json = ["ling-2.6-1t": ling1T, "ling-2.6-flash": lingFlash]

    private static let ling1T = text(
        hidden: 8192, layers: 80, heads: 64, dense: 4, intermediate: 18432, expertIntermediate: 2048, groups: 8)
    private static let lingFlash = text(
        hidden: 4096, layers: 32, heads: 32, dense: 1, intermediate: 9216, expertIntermediate: 1024, groups: 4)

    private static func text(
        hidden: Int, layers: Int, heads: Int, dense: Int, intermediate: Int, expertIntermediate: Int, groups: Int
    ) -> String {
        """
        {"architectures": ["BailingMoeV2_5ForCausalLM"], "model_type": "bailing_hybrid", "vocab_size": 157184,
        "hidden_size": \(hidden), "num_hidden_layers": \(layers), "num_attention_heads": \(heads), "head_dim": 128,
        "intermediate_size": \(intermediate), "first_k_dense_replace": \(dense), "num_experts": 256,
        "num_experts_per_tok": 8, "num_shared_experts": 1, "moe_intermediate_size": \(expertIntermediate),
        "n_group": 8, "topk_group": 4, "routed_scaling_factor": 2.5, "score_function": "sigmoid",
        "layer_group_size": 8, "group_norm_size": \(groups), "use_qk_norm": true, "q_lora_rank": 1536,
        "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
        "rope_interleave": true, "partial_rotary_factor": 0.5, "rope_theta": 6000000, "rope_scaling": null,
        "max_position_embeddings": 131072, "rms_norm_eps": 1e-06, "hidden_act": "silu", "tie_word_embeddings": false,
        "num_nextn_predict_layers": 1, "pad_token_id": 156892, "eos_token_id": 156892}
        """
    }
}
