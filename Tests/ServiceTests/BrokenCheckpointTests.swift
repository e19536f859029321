import Foundation
import Testing

/// A checkpoint that is not whole is refused by the services that need the missing part, at start and by name.
@Suite(.timeLimit(.minutes(2))) struct BrokenCheckpointTests {
    private enum Damage: CaseIterable {
        case missing, misshaped, unknownType, truncated
    }

    /// A copy of a golden checkpoint whose `tensor` is damaged.
    private func broken(_ model: String, _ tensor: String, _ damage: Damage) throws -> URL {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("broken-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        let source = Executables.goldens.appendingPathComponent(model)
        try FileManager.default.copyItem(
            at: source.appendingPathComponent("config.json"), to: folder.appendingPathComponent("config.json"))
        let data = try Data(contentsOf: source.appendingPathComponent("model.safetensors"))
        let length = data.prefix(8).reversed().reduce(0) { $0 << 8 | Int($1) }
        var header = try #require(
            JSONSerialization.jsonObject(with: data[8..<8 + length]) as? [String: [String: Any]])
        var tensors = data[(8 + length)...]
        var entry = try #require(header[tensor])
        switch damage {
        case .missing: header[tensor] = nil
        case .misshaped: entry["shape"] = ((entry["shape"] as? [Int]) ?? []) + [1, 1]
        case .unknownType: entry["dtype"] = "F31"
        case .truncated: tensors = tensors.dropLast(((entry["data_offsets"] as? [Int])?[1] ?? 0) > 0 ? 1 : 0)
        }
        if damage != .missing { header[tensor] = entry }
        let json = try JSONSerialization.data(withJSONObject: header)
        let prefix = withUnsafeBytes(of: UInt64(json.count).littleEndian) { Data($0) }
        try (prefix + json + tensors).write(to: folder.appendingPathComponent("model.safetensors"))
        return folder
    }

    /// Tensors, and who needs them.
    private static let owners: [(tensor: String, program: String, arguments: [String])] = [
        (
            "model.layers.0.attention.query_key_value.weight", "ironling-attention",
            ["--experts", "127.0.0.1:1", "--sampler", "127.0.0.1:1"]
        ),
        (
            "model.word_embeddings.weight", "ironling-attention",
            ["--experts", "127.0.0.1:1", "--sampler", "127.0.0.1:1"]
        ),
        (
            "model.layers.3.mlp.gate.weight", "ironling-attention",
            ["--experts", "127.0.0.1:1", "--sampler", "127.0.0.1:1"]
        ),
        ("model.layers.2.mlp.experts.5.up_proj.weight", "ironling-experts", ["--port", "0"]),
        ("model.layers.7.mlp.shared_experts.down_proj.weight", "ironling-experts", ["--port", "0"]),
        ("model.norm.weight", "ironling-sampler", ["--port", "0"]),
        ("lm_head.weight", "ironling-sampler", ["--port", "0"]),
    ]

    @Test func damagedTensorsAreNamedByTheirOwnersAtStart() throws {
        for (tensor, program, arguments) in Self.owners {
            for damage in [Damage.missing, .misshaped, .unknownType] {
                let folder = try broken("base", tensor, damage)
                defer { try? FileManager.default.removeItem(at: folder) }
                let result = try Executables.run(program, ["--model", folder.path] + arguments)
                #expect(
                    result.status == 1 && result.error.contains(tensor), "\(tensor) \(damage): \(result.error)")
            }
        }
    }

    @Test func theLastTensorOfATruncatedFileIsNamedByEveryService() throws {
        let data = try Data(contentsOf: Executables.goldens.appendingPathComponent("base/model.safetensors"))
        let length = data.prefix(8).reversed().reduce(0) { $0 << 8 | Int($1) }
        let header = try #require(
            JSONSerialization.jsonObject(with: data[8..<8 + length]) as? [String: [String: Any]])
        func end(_ name: String) -> Int { (header[name]?["data_offsets"] as? [Int])?.last ?? 0 }
        let last = try #require(header.keys.filter { $0 != "__metadata__" }.max { end($0) < end($1) })
        let folder = try broken("base", last, .truncated)
        defer { try? FileManager.default.removeItem(at: folder) }
        for (program, arguments) in [
            ("ironling-gateway", ["--attention", "127.0.0.1:1"]), ("ironling-sampler", []), ("ironling-experts", []),
            ("ironling-attention", ["--experts", "127.0.0.1:1", "--sampler", "127.0.0.1:1"]),
            ("ironling", ["up"]), ("ironling", ["generate", "--prompt-ids", "1"]),
        ] {
            let subcommand = program == "ironling" ? Array(arguments.prefix(1)) : []
            let rest = program == "ironling" ? Array(arguments.dropFirst()) : arguments
            let result = try Executables.run(program, subcommand + ["--model", folder.path] + rest)
            #expect(result.status == 1 && result.error.contains(last), "\(program): \(result.error)")
        }
    }

    @Test func aQuantisedMatrixWithoutItsScalesIsNamed() throws {
        let tensor = "model.layers.3.mlp.experts.0.gate_proj.weight_scale"
        let folder = try broken("fp8", tensor, .missing)
        defer { try? FileManager.default.removeItem(at: folder) }
        let result = try Executables.run("ironling-experts", ["--model", folder.path, "--port", "0"])
        #expect(result.status == 1 && result.error.contains(tensor), "\(result.error)")
    }

    /// One message and an end, not a loop of restarts.
    @Test func theWholeSetEndsWithTheReason() throws {
        let tensor = "lm_head.weight"
        let folder = try broken("base", tensor, .missing)
        defer { try? FileManager.default.removeItem(at: folder) }
        let result = try Executables.ironling(["up", "--model", folder.path, "--http-port", "0", "--rpc-port", "0"])
        #expect(result.status == 1 && result.error.contains("tensor lm_head.weight is missing"), "\(result.error)")
        #expect(result.error.contains("sampler does not start"))
    }
}
