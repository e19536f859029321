import Checkpoint
import Foundation
import Numerics
import Testing

/// A folder with a checkpoint to quantise and a place for the result.
private final class QuantizedFolder {
    let source: CheckpointFolder
    let output: URL

    init(_ tensors: [StoredTensor]) throws {
        source = try CheckpointFolder()
        output = source.directory.appendingPathComponent("fp8")
        try source.write(safetensors(tensors), "model.safetensors")
    }

    @discardableResult func quantize(_ report: (CheckpointQuantizer.Progress) -> Void = { _ in }) throws
        -> CheckpointQuantizer.Summary
    {
        try CheckpointQuantizer(source.open(), output: output).run(report)
    }

    /// Stored bytes of a tensor of the result.
    func bytes(_ name: String) throws -> [UInt8] {
        let checkpoint = try Checkpoint(directory: output)
        let location = try #require(checkpoint.tensors[name], "\(name)")
        let data = try Data(contentsOf: checkpoint.files[location.file])
        return Array(data[location.entry.offset..<location.entry.offset + location.entry.byteCount])
    }

    func floats(_ name: String) throws -> [Float] {
        try bytes(name).withUnsafeBytes { raw in
            (0..<raw.count / 4).map { raw.loadUnaligned(fromByteOffset: 4 * $0, as: Float.self) }
        }
    }
}

private func floats(_ name: String, _ shape: [Int], _ values: [Float]) -> StoredTensor {
    StoredTensor(name, "F32", shape, values.withUnsafeBytes { Array($0) })
}

private func bfloats(_ name: String, _ shape: [Int], _ values: [Float]) -> StoredTensor {
    let bits = values.map { BFloat16($0).bitPattern }
    return StoredTensor(name, "BF16", shape, bits.withUnsafeBytes { Array($0) })
}

private let linear = "model.layers.0.attention.dense.weight"

@Suite struct CheckpointQuantizerTests {
    @Test(arguments: [UInt64(1), 2, 3]) func rowsAreWithinHalfAStepOfTheirScale(seed: UInt64) throws {
        var state = seed
        let values = (0..<40 * 24).map { index -> Float in
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return (Float(state >> 40) / 0x1p24 - 0.5) * Float(1 + index / 24)
        }
        for tensor in [floats(linear, [40, 24], values), bfloats(linear, [40, 24], values)] {
            let folder = try QuantizedFolder([tensor])
            try folder.quantize()
            let stored = try folder.bytes(linear).map { Float8E4M3(bitPattern: $0).float }
            let scales = try folder.floats(linear + "_scale")
            for (index, value) in values.enumerated() {
                let exact = tensor.type == "BF16" ? BFloat16(value).float : value
                let scale = scales[index / 24]
                let step = max(exact.magnitude / 16, scale * 0x1p-10)
                #expect((stored[index] * scale - exact).magnitude <= step * 1.0001, "seed \(seed), element \(index)")
            }
            for row in 0..<40 {
                #expect(stored[row * 24..<row * 24 + 24].contains { $0.magnitude == 448 }, "seed \(seed), row \(row)")
            }
        }
    }

    @Test func zeroAndTinyRowsStayFinite() throws {
        let tiny = Float.leastNonzeroMagnitude
        let folder = try QuantizedFolder([floats(linear, [3, 2], [0, 0, tiny, -tiny, 3e38, -3e38])])
        try folder.quantize()
        let scales = try folder.floats(linear + "_scale")
        #expect(scales[0] == 1 && scales.allSatisfy { $0.isNormal })
        #expect(try folder.bytes(linear).allSatisfy { Float8E4M3(bitPattern: $0).float.isFinite })
        #expect(try folder.bytes(linear).suffix(2) == [0x7E, 0xFE])
    }

    @Test func onlyLinearsOfDecoderLayersChange() throws {
        let kept = [
            "model.word_embeddings.weight", "lm_head.weight", "model.layers.2.mlp.gate.weight",
            "model.layers.8.eh_proj.weight", "model.layers.8.mlp.experts.0.up_proj.weight",
        ]
        let changed = [
            linear, "model.layers.7.mlp.experts.15.down_proj.weight",
            "model.layers.3.mlp.shared_experts.up_proj.weight",
        ]
        let vectors = [
            "model.norm.weight", "model.layers.0.input_layernorm.weight", "model.layers.2.mlp.gate.expert_bias",
        ]
        let folder = try QuantizedFolder(
            (kept + changed).map { bfloats($0, [2, 3], [1, 2, 3, 4, 5, 6]) } + vectors.map { floats($0, [2], [7, 8]) })
        var last: CheckpointQuantizer.Progress?
        let summary = try folder.quantize { last = $0 }
        #expect(summary.quantizedTensors == 3 && summary.keptTensors == 8)
        #expect(last?.bytesDone == summary.bytesBefore && last?.bytesTotal == summary.bytesBefore)
        let result = try Checkpoint(directory: folder.output)
        #expect(result.tensors.count == 14)
        for name in changed {
            #expect(result.tensors[name]?.entry.storedType == "F8_E4M3")
            #expect(result.tensors[name + "_scale"]?.entry.shape == [2, 1])
        }
        for name in kept {
            #expect(try folder.bytes(name).count == 12 && result.tensors[name]?.entry.storedType == "BF16")
        }
        for name in vectors { #expect(try folder.floats(name) == [7, 8]) }
        let config = try Data(contentsOf: folder.output.appendingPathComponent("config.json"))
        let object = try #require(try JSONSerialization.jsonObject(with: config) as? [String: Any])
        let description = try #require(object["quantization_config"] as? [String: Any])
        #expect(description["quant_method"] as? String == "compressed-tensors")
        #expect(
            description["ignore"] as? [String]
                == [
                    "lm_head", "model.layers.2.mlp.gate", "model.layers.8.eh_proj",
                    "model.layers.8.mlp.experts.0.up_proj",
                ])
        #expect(object["rms_norm_eps"] as? Double == 1e-6 && object["rope_scaling"] is NSNull)
    }

    @Test func badInputsAreRefusedByNameAndLeaveNothing() throws {
        let infinite = bfloats(linear, [2, 2], [1, 2, .infinity, 4])
        for (tensors, word) in [
            ([infinite], "row 1"), ([floats(linear, [1, 2], [.nan, 1])], linear),
            ([StoredTensor(linear, "F8_E4M3", [2, 2], [1, 2, 3, 4])], "already"),
            ([StoredTensor(linear, "F16", [1, 2], [0, 0, 0, 0])], "F16"),
            ([floats("model.norm.weight", [2], [1, 2])], "no linear"), ([floats(linear, [2, 0], [])], "[2, 0]"),
            ([floats(linear, [0, 2], [])], "[0, 2]"),
        ] {
            let folder = try QuantizedFolder(tensors)
            let sentence = refusal { try folder.quantize() }
            #expect(sentence?.contains(word) == true, "\(word): \(sentence ?? "accepted")")
            let left = try FileManager.default.contentsOfDirectory(atPath: folder.source.directory.path).sorted()
            #expect(left == ["config.json", "model.safetensors"])
        }
    }

    @Test func aFolderWithFilesIsNotOverwritten() throws {
        let folder = try QuantizedFolder([floats(linear, [1, 2], [1, 2])])
        try FileManager.default.createDirectory(at: folder.output, withIntermediateDirectories: false)
        let note = folder.output.appendingPathComponent("note")
        try Data("keep".utf8).write(to: note)
        #expect(refusal { try folder.quantize() }?.contains("not an empty folder") == true)
        #expect(try String(contentsOf: note, encoding: .utf8) == "keep")
        try FileManager.default.removeItem(at: note)
        try folder.quantize()
        #expect(try folder.bytes(linear).count == 2)
    }

    @Test func shardsKeepTheirFilesAndTheIndexNamesTheScales() throws {
        let source = try CheckpointFolder()
        let other = "model.layers.1.attention.dense.weight"
        try source.write(safetensors([floats(linear, [2, 2], [1, 2, 3, 4])]), "model-1.safetensors")
        try source.write(safetensors([floats(other, [2, 2], [1, 2, 3, 4])]), "model-2.safetensors")
        try source.write(index: [linear: "model-1.safetensors", other: "model-2.safetensors"])
        let output = source.directory.appendingPathComponent("fp8")
        _ = try CheckpointQuantizer(source.open(), output: output).run()
        let result = try Checkpoint(directory: output)
        #expect(result.files.map(\.lastPathComponent) == ["model-1.safetensors", "model-2.safetensors"])
        #expect(result.tensors[other + "_scale"]?.file == 1 && result.tensors[linear]?.file == 0)
        let index = try Data(contentsOf: output.appendingPathComponent("model.safetensors.index.json"))
        let object = try #require(try JSONSerialization.jsonObject(with: index) as? [String: Any])
        #expect((object["metadata"] as? [String: Int]) == ["total_size": 24])
    }

    @Test func tensorsLargerThanABlockAreJoinedSeamlessly() throws {
        let columns = 700
        let rows = CheckpointQuantizer.blockByteCount / (2 * columns) + 5
        let values = (0..<rows * columns).map { Float($0 % 255 - 127) * Float(1 + $0 / columns % 3) }
        let folder = try QuantizedFolder([bfloats(linear, [rows, columns], values)])
        try folder.quantize()
        let (stored, scales) = (try folder.bytes(linear), try folder.floats(linear + "_scale"))
        for row in [0, 1, rows - 6, rows - 5, rows - 4, rows - 1] {
            let largest = values[row * columns..<(row + 1) * columns].reduce(0) { max($0, $1.magnitude) }
            #expect(scales[row] == BFloat16(largest).float / 448, "row \(row)")
            let place = row * columns + 3
            #expect(stored[place] == Float8E4M3(BFloat16(values[place]).float / scales[row]).bitPattern, "row \(row)")
        }
    }
}
