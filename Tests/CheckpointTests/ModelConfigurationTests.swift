import Checkpoint
import Foundation
import TestSupport
import Testing

struct ModelConfigurationTests {
    /// A change of `config.json` that must be refused by the name of `field`.
    struct Refused: Sendable, CustomTestStringConvertible {
        let field: String
        let json: String
        var testDescription: String { "\(field): \(json)" }

        init(_ field: String, _ json: String) { (self.field, self.json) = (field, json) }
    }

    static let refused: [Refused] =
        [
            Refused("architectures", #"["BailingMoeV3ForCausalLM"]"#), Refused("architectures", "[]"),
            Refused("architectures", #"["BailingMoeV2ForCausalLM"]"#), Refused("architectures", "null"),
            Refused("short_conv_kernel_size", "4"), Refused("kda_head_dim", "128"), Refused("kda_num_heads", "null"),
            Refused("linear_silu", "true"), Refused("use_linear_silu", "true"), Refused("linear_rope", "false"),
            Refused("rope_interleave", "false"), Refused("use_qk_norm", "false"), Refused("use_bias", "true"),
            Refused("use_qkv_bias", "true"), Refused("tie_word_embeddings", "true"),
            Refused("tie_word_embeddings", #""no""#), Refused("norm_topk_prob", "false"),
            Refused("hidden_act", #""gelu""#), Refused("score_function", #""softmax""#),
            Refused("scoring_func", "1"), Refused("full_attention_type", #""gqa""#),
            Refused("layers_block_type", #"["attention"]"#), Refused("router_dtype", #""bf16""#),
            Refused("rope_type", #"{"rope_type": "linear", "factor": 2}"#),
            Refused("rope_type", #"{"type": "dynamic", "factor": 2}"#), Refused("rope_type", #"{"factor": 2}"#),
            Refused("factor", #"{"rope_type": "yarn"}"#), Refused("factor", #"{"rope_type": "yarn", "factor": 0}"#),
            Refused("quant_method", #"{"quant_method": "gptq"}"#),
            Refused("quant_method", #"{"quant_method": "compressed-tensors", "format": "pack-quantized"}"#),
        ].map { $0 }
        + [
            "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "head_dim", "intermediate_size",
            "num_experts", "num_experts_per_tok", "moe_intermediate_size", "layer_group_size", "group_norm_size",
            "kv_lora_rank", "q_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim",
            "max_position_embeddings", "rope_theta", "moe_shared_expert_intermediate_size",
        ].flatMap { name in ["0", "-1", "1e300", #""8""#, "99999999999999"].map { Refused(name, $0) } }
        + [
            "first_k_dense_replace", "num_shared_experts", "n_group", "topk_group", "num_nextn_predict_layers",
        ].flatMap { name in ["-1", "1.5", "1e300", "[]"].map { Refused(name, $0) } }
        + [
            Refused("rms_norm_eps", "0"), Refused("rms_norm_eps", "2"), Refused("partial_rotary_factor", "0"),
            Refused("partial_rotary_factor", "1.5"), Refused("partial_rotary_factor", "0.25"),
            Refused("routed_scaling_factor", "-1"), Refused("n_group", "3"), Refused("topk_group", "0"),
            Refused("group_norm_size", "3"), Refused("eos_token_id", "256"), Refused("eos_token_id", "[1, -1]"),
        ]

    @Test(arguments: refused)
    func refusalNamesTheField(_ change: Refused) throws {
        let value = try JSONSerialization.jsonObject(with: Data(change.json.utf8), options: .fragmentsAllowed)
        let nested = ["rope_type": "rope_scaling", "factor": "rope_scaling", "quant_method": "quantization_config"]
        let data = try configuration([nested[change.field] ?? change.field: value])
        let message = refusal { _ = try ModelConfiguration(json: data) }
        #expect(message?.contains(change.field) == true, "\(message ?? "accepted")")
        #expect(message?.contains("config.json") == true)
    }

    /// Without head_dim it is hidden_size / heads, which is as bound to its range as a given one.
    @Test(arguments: [(4, 8), (65536, 1)])
    func aHeadWidthThatFollowsFromOtherFieldsIsRefusedByName(hidden: Int, heads: Int) throws {
        let data = try configuration(["head_dim": NSNull(), "hidden_size": hidden, "num_attention_heads": heads])
        let message = refusal { _ = try ModelConfiguration(json: data) }
        #expect(message?.contains("head_dim") == true, "\(message ?? "accepted")")
    }

    @Test(arguments: [
        "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "num_experts",
        "num_experts_per_tok", "moe_intermediate_size", "layer_group_size", "group_norm_size", "kv_lora_rank",
        "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "rope_theta", "max_position_embeddings",
    ])
    func missingFieldIsNamed(_ name: String) throws {
        let data = try configuration(removing: [name])
        #expect(refusal { _ = try ModelConfiguration(json: data) } == "config.json: \(name) is missing")
    }

    @Test func absentFieldsFallBack() throws {
        let parsed = try ModelConfiguration(
            json: configuration(
                ["q_lora_rank": NSNull(), "rope_scaling": ["rope_type": "default"]],
                removing: ["head_dim", "num_nextn_predict_layers", "norm_topk_prob", "n_group", "topk_group"]))
        #expect(parsed.headWidth == 16)
        #expect(parsed.queryRank == nil)
        #expect(parsed.yarn == nil)
        #expect(parsed.groupCount == 1)
        #expect(parsed.nextTokenLayerCount == 0)
    }

    @Test func trailingPartialGroupIsFullAttention() throws {
        let parsed = try ModelConfiguration(json: configuration(["num_hidden_layers": 10]))
        #expect(parsed.fullAttentionLayers == [3, 7, 8, 9])
    }

    @Test func endTokensOfBothFilesAreJoined() throws {
        let parsed = try ModelConfiguration(
            json: configuration(), generationJSON: Data(#"{"eos_token_id": [5, 1]}"#.utf8))
        #expect(parsed.endTokenIDs == [1, 5])
    }

    @Test func textThatIsNoObjectIsRefused() throws {
        for text in ["", "[]", "{", "null", "\u{0}"] {
            #expect(refusal { _ = try ModelConfiguration(json: Data(text.utf8)) }?.contains("config.json") == true)
        }
    }

    @Test func aFieldThatNobodyReadsMayBeNoNumber() throws {
        let text = String(decoding: try configuration(), as: UTF8.self)
        let infinite = "{\"time_step_limit\": [0.0, Infinity], \"x\": NaN, " + text.dropFirst()
        let parsed = try ModelConfiguration(json: Data(infinite.utf8))
        #expect(parsed.vocabularySize == 256)
        let theta = "{\"rope_theta\": Infinity, " + text.dropFirst().replacing("\"rope_theta\"", with: "\"other\"")
        #expect(
            refusal { _ = try ModelConfiguration(json: Data(theta.utf8)) }
                == "config.json: rope_theta must be a number from 1.0001 to 1000000000000.0, not Infinity")
    }

    @Test func aBrokenFileIsNamedWithLineColumnAndWhatStandsThere() throws {
        let text = "{\n  \"vocab_size\": 256,\n  \"hidden_size\" 64\n}"
        #expect(
            refusal { _ = try ModelConfiguration(json: Data(text.utf8)) }
                == "config.json, line 3, column 17: a colon is missing behind a name; there stands: 64")
    }

    @Test(arguments: [21, 22])
    func mutatedTextNeverCrashes(seed: UInt64) throws {
        let whole = try configuration()
        var random = SeededRandom(seed: seed)
        for _ in 0..<2000 {
            var text = whole
            for _ in 0...(random.next() % 3) {
                text[Int(random.next() % UInt64(text.count))] = UInt8(truncatingIfNeeded: random.next())
            }
            _ = refusal { _ = try ModelConfiguration(json: text) }
        }
        for count in 0..<whole.count {
            #expect(refusal { _ = try ModelConfiguration(json: whole.prefix(count)) } != nil)
        }
    }
}
