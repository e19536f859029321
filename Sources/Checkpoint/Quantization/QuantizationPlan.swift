import Foundation
import JSON

/// Which tensors of a checkpoint become FP8, and what its `config.json` then says (docs/model.md#stored-numbers): the linears of the
/// decoder layers; not embeddings, head, norms, router gates, or anything of the MTP layers.
struct QuantizationPlan {
    /// Names of the tensors to quantise.
    let quantized: Set<String>
    /// Linears that keep their type, without ".weight", as `ignore` lists them.
    let ignored: [String]

    /// Sorts the tensors; refuses checkpoints that are quantised already or hold types that cannot be.
    init(_ checkpoint: Checkpoint) throws(CheckpointError) {
        var quantized: Set<String> = []
        var ignored: [String] = []
        let layerCount = checkpoint.configuration.layerCount
        for (name, location) in checkpoint.tensors.sorted(by: { $0.key < $1.key }) {
            let entry = location.entry
            guard !name.hasSuffix("weight_scale"), !entry.storedType.hasPrefix("F8") else {
                throw CheckpointError(.tensor, "the checkpoint is quantised already: it has tensor \(name) in FP8")
            }
            guard entry.shape.count == 2, name.hasSuffix(".weight"), name != "model.word_embeddings.weight" else {
                continue
            }
            guard Self.isQuantized(name, layerCount: layerCount) else {
                ignored.append(String(name.dropLast(".weight".count)))
                continue
            }
            guard ["BF16", "F32"].contains(entry.storedType), entry.byteCount > 0 else {
                throw CheckpointError(
                    .tensor,
                    "tensor \(name) is \(entry.storedType) \(entry.shape); only BF16 and F32 can be quantised")
            }
            quantized.insert(name)
        }
        guard !quantized.isEmpty else {
            throw CheckpointError(.tensor, "the checkpoint has no linear weights in its decoder layers")
        }
        (self.quantized, self.ignored) = (quantized, ignored)
    }

    private static func isQuantized(_ name: String, layerCount: Int) -> Bool {
        let parts = name.split(separator: ".")
        guard parts.count >= 5, parts[0] == "model", parts[1] == "layers", let layer = Int(parts[2]) else {
            return false
        }
        return layer < layerCount && !name.hasSuffix(".mlp.gate.weight")
    }

    /// `config.json` with the compressed-tensors description added; all other fields stay as they are.
    func configuration(from json: Data) throws(CheckpointError) -> Data {
        let fields = try ConfigurationFields(json: json, path: "config.json")
        let kept = fields.members.filter { $0.name != "quantization_config" }
        let object = JSONValue.object(kept + [.init("quantization_config", description)])
        return Data((object.indentedText + "\n").utf8)
    }

    private var description: JSONValue {
        func numbers(dynamic: Bool, strategy: String) -> JSONValue {
            .object([
                .init("num_bits", .number("8")), .init("type", .string("float")), .init("strategy", .string(strategy)),
                .init("symmetric", .bool(true)), .init("dynamic", .bool(dynamic)),
            ])
        }
        let group = JSONValue.object([
            .init("targets", .array([.string("Linear")])),
            .init("weights", numbers(dynamic: false, strategy: "channel")),
            .init("input_activations", numbers(dynamic: true, strategy: "token")), .init("output_activations", .null),
        ])
        return .object([
            .init("quant_method", .string("compressed-tensors")), .init("format", .string("float-quantized")),
            .init("quantization_status", .string("compressed")), .init("ignore", .array(ignored.map(JSONValue.string))),
            .init("config_groups", .object([.init("group_0", group)])),
        ])
    }
}
