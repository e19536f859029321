import Checkpoint
import Foundation
import Testing

/// Every field of `config.json` is read, known to be harmless, refused by name, or noted.
struct ConfigurationRulesTests {
    private func notes(_ changes: [String: Any]) throws -> [String] {
        try ModelConfiguration(json: configuration(changes)).notes
    }

    @Test func fieldsOfTrainingAndPythonDoNoHarm() throws {
        #expect(
            try notes([
                "torch_dtype": "float16", "dtype": "bfloat16", "auto_map": ["AutoConfig": "x"], "use_cache": true,
                "transformers_version": "5.0", "attention_dropout": 0.1, "initializer_range": 0.02,
                "model_type": "bailing_moe_linear", "sliding_window": NSNull(), "embedding_multiplier": 1,
            ]).isEmpty)
    }

    @Test func aFieldThatIsNotKnownIsNoted() throws {
        #expect(try notes(["of_tomorrow": 1]) == ["config.json: of_tomorrow is not known and not used"])
        #expect(try notes(["of_tomorrow": NSNull()]).isEmpty)
    }

    @Test(arguments: [
        ("attention_bias", "true"), ("use_sliding_window", "true"), ("final_logit_softcapping", "30.0"),
        ("logit_scale", "0.5"), ("is_encoder_decoder", "true"), ("norm_head", "true"), ("layer_types", #"["sparse"]"#),
        ("mlp_layer_types", "[]"), ("n_routed_experts", "3"), ("quantization", #"{"bits": 4, "group_size": 64}"#),
        ("quantization_config", #""gptq""#), ("model_type", "5"),
    ])
    func whatWouldChangeAnswersIsRefusedByName(name: String, json: String) throws {
        let value = try JSONSerialization.jsonObject(with: Data(json.utf8), options: .fragmentsAllowed)
        let sentence = refusal { _ = try notes([name: value]) }
        #expect(sentence?.hasPrefix("config.json: \(name) ") == true, "\(sentence ?? "accepted")")
    }

    @Test func layerKindsMayBeSpelledOut() throws {
        let parsed = try ModelConfiguration(json: configuration())
        let kinds = (0..<parsed.layerCount).map { parsed.isFullAttention($0) ? "full_attention" : "linear_attention" }
        let blocks = (0..<parsed.layerCount).map { parsed.isDense($0) ? "dense" : "sparse" }
        #expect(
            try notes([
                "layer_types": kinds, "mlp_layer_types": blocks, "n_routed_experts": parsed.expertCount,
                "qk_head_dim": parsed.nopeWidth + parsed.ropeWidth,
            ]).isEmpty)
    }

    @Test func anotherModelIsNamedWithWhatIsServed() throws {
        let sentence = refusal { _ = try notes(["architectures": ["LlamaForCausalLM"], "model_type": "llama"]) }
        #expect(
            sentence
                == "config.json: architectures is LlamaForCausalLM (model_type llama), which is not served; Ironling serves "
                + "BailingMoeV2_5ForCausalLM: Ling-2.5, Ling-2.6, Ring-2.5")
    }

    @Test func endTokensMayBeNamedOrListedWithNull() throws {
        let json = try configuration(["eos_token_id": ["<end>", NSNull(), 3]])
        let parsed = try ModelConfiguration(json: json) { text in text == "<end>" ? 9 : nil }
        #expect(parsed.endTokenIDs == [3, 9])
        #expect(refusal { _ = try ModelConfiguration(json: json) }?.contains(#"eos_token_id names "<end>""#) == true)
    }
}
