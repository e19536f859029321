import Checkpoint
import Foundation
import HybridModel
import JSON
import Testing

/// `ironling inspect`, and the same check before anything is loaded.
struct InspectCommandTests {
    /// Seconds of a processor within which the product promises to tell; code that is not optimised takes longer.
    private static var limit: Double {
        #if DEBUG
            60
        #else
            2
        #endif
    }

    private static let tiny = Executables.modelFolder("ling-tiny")

    private func inspect(_ folder: URL, _ arguments: [String] = []) throws -> (JSONValue, Int32, String) {
        let result = try Executables.ironling(["inspect", folder.path, "--json"] + arguments)
        return (try JSONValue(parsing: Array(result.output.utf8)), result.status, result.error)
    }

    @Test(arguments: ["base", "fp8", "mtp", "noqlora6h", "tail", "yarn"])
    func everyTensorIsCountedOnce(model: String) throws {
        let checkpoint = try Checkpoint(directory: Executables.modelFolder(model))
        let footprint = CheckpointFootprint(checkpoint)
        let (bytes, all) = (footprint.bytes, checkpoint.tensors.values.reduce(0) { $0 + $1.entry.byteCount })
        #expect(bytes.attention + bytes.routed + bytes.shared + bytes.sampler + bytes.unused == all)
        #expect(footprint.formats.values.reduce(0) { $0 + $1.byteCount } == all)
        #expect((bytes.unused > 0) == (checkpoint.configuration.nextTokenLayerCount > 0))
        #expect(footprint.activeParameterCount < footprint.parameterCount)
        #expect(footprint.bytesReadPerToken < all)
        #expect(footprint.expertsBytes(shards: 1) == bytes.routed + bytes.shared)
        #expect(footprint.expertsBytes(shards: 4) < footprint.expertsBytes(shards: 1))
    }

    @Test func theDemoModelIsDescribed() throws {
        let (json, status, _) = try inspect(Self.tiny)
        #expect(status == 0)
        #expect(json["name"] == .string("ling-tiny"))
        #expect(json["layers"]?["linear_attention"]?.integer == 6 && json["layers"]?["full_attention"]?.integer == 2)
        #expect(json["end_ids"] == .array([.number("4084"), .number("4087")]))
        #expect(json["generation"]?["temperature"]?.double == 0.8)
        #expect(json["chat_template"] == .null && json["notes"] == .array([]))
        #expect(json["memory"]?["verdict"] == .string("fits"))
        let text = try Executables.ironling(["inspect", "--model", Self.tiny.path])
        #expect(text.output.hasPrefix("ling-tiny (") && text.output.contains("4084 <|endoftext|>"))
    }

    @Test func whatCannotBeServedIsAProblemAndAllElseIsShown() throws {
        let folder = try TemporaryCheckpoint(of: Self.tiny)
        try folder.write(#"{"num_beams": 4}"#, "generation_config.json")
        try folder.write("{{ messages }}", "chat_template.jinja")
        let (json, status, errors) = try inspect(folder.url)
        #expect(status == 1)
        #expect(errors.contains("generation_config.json: num_beams is 4"), "\(errors)")
        #expect(json["chat_template"] == .string("chat_template.jinja"))
        #expect(json["notes"]?.text.contains("chat_template.jinja has a chat template that is not used") == true)
    }

    /// 104 billion parameters in BF16, 206 GB of them in holes of the files.
    @Test func aCheckpointLargerThanTheMachineIsToldWithinTwoSeconds() throws {
        let folder = try SparseCheckpoint()
        let (json, status, _) = try inspect(folder.url)
        #expect(status == 0)
        #expect(json["memory"]?["verdict"] == .string("does not fit"))
        #expect((json["bytes"]?.integer ?? 0) > 200_000_000_000)
        let up = try Executables.ironling(["up", "--model", folder.url.path, "--http-port", "0", "--rpc-port", "0"])
        #expect(up.status == 1)
        for told in [["inspect"], ["up", "--http-port", "0", "--rpc-port", "0"]] {
            #expect(try Executables.processorSeconds(told + ["--model", folder.url.path]) < Self.limit)
        }
        for part in ["does not fit", "GiB", "--weights map"] { #expect(up.error.contains(part), "\(up.error)") }
        let one = try Executables.ironling([
            "generate", "--in-process", "--model", folder.url.path, "--prompt-ids", "1", "--max-tokens", "1",
        ])
        #expect(one.status == 1 && one.error.contains("does not fit"), "\(one.error)")
    }

    @Test func stateMemoryCountsBesideTheWeights() throws {
        let up = try Executables.ironling([
            "up", Executables.goldens.appendingPathComponent("base").path, "--byte-tokenizer", "--state-memory",
            "100TiB", "--http-port", "0", "--rpc-port", "0", "--api-keys-file", "/there/is/no/such/file",
        ])
        #expect(up.status == 1 && up.error.contains("state of requests (up to 100.0 TiB)"), "\(up.error)")
        #expect(up.error.contains("or less --state-memory"), "\(up.error)")
    }
}

/// A copy of a checkpoint's small files beside links to its weights, removed with the value.
private final class TemporaryCheckpoint {
    let url: URL

    init(of source: URL) throws {
        url = FileManager.default.temporaryDirectory.appendingPathComponent("inspect-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
        for name in ["config.json", "tokenizer.json", "model.safetensors"] {
            try FileManager.default.createSymbolicLink(
                at: url.appendingPathComponent(name), withDestinationURL: source.appendingPathComponent(name))
        }
    }

    deinit { try? FileManager.default.removeItem(at: url) }

    func write(_ text: String, _ name: String) throws {
        try Data(text.utf8).write(to: url.appendingPathComponent(name))
    }
}
