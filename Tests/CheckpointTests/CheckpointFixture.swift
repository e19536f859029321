import Checkpoint
import Foundation
import Testing

/// One tensor to be written.
struct StoredTensor {
    var name: String
    var type: String
    var shape: [Int]
    var bytes: [UInt8]

    init(_ name: String, _ type: String, _ shape: [Int], _ bytes: [UInt8]) {
        (self.name, self.type, self.shape, self.bytes) = (name, type, shape, bytes)
    }

    /// fp32 values 0, 1, 2, … times `step`.
    static func floats(_ name: String, _ shape: [Int], step: Float = 0.5) -> StoredTensor {
        let values = (0..<shape.reduce(1, *)).map { Float($0) * step }
        return StoredTensor(name, "F32", shape, values.withUnsafeBytes { Array($0) })
    }
}

/// The bytes of a safetensors file with these tensors one after the other.
func safetensors(_ tensors: [StoredTensor]) throws -> Data {
    var object: [String: Any] = ["__metadata__": ["format": "pt"]]
    var end = 0
    for tensor in tensors {
        object[tensor.name] = [
            "dtype": tensor.type, "shape": tensor.shape, "data_offsets": [end, end + tensor.bytes.count],
        ]
        end += tensor.bytes.count
    }
    let json = try JSONSerialization.data(withJSONObject: object, options: .sortedKeys)
    return framed(json) + Data(tensors.flatMap(\.bytes))
}

/// A JSON header with its length in front.
func framed(_ json: Data) -> Data {
    withUnsafeBytes(of: UInt64(json.count).littleEndian) { Data($0) } + json
}

/// A checkpoint folder that is removed with the value.
final class CheckpointFolder {
    let directory: URL

    init() throws {
        directory = FileManager.default.temporaryDirectory.appendingPathComponent("ironling-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        try write(configuration(), "config.json")
    }

    deinit { try? FileManager.default.removeItem(at: directory) }

    func write(_ data: Data, _ name: String) throws {
        try data.write(to: directory.appendingPathComponent(name))
    }

    func write(index: [String: String]) throws {
        try write(JSONSerialization.data(withJSONObject: ["weight_map": index]), "model.safetensors.index.json")
    }

    func open() throws -> Checkpoint { try Checkpoint(directory: directory) }
}

/// `config.json` of the smallest golden checkpoint with `changes` on top; NSNull stays as a JSON null.
func configuration(_ changes: [String: Any] = [:], removing removed: [String] = []) throws -> Data {
    let file = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .appendingPathComponent("Fixtures/golden/base/config.json")
    var object = try #require(try JSONSerialization.jsonObject(with: Data(contentsOf: file)) as? [String: Any])
    object.merge(changes) { $1 }
    for name in removed { object[name] = nil }
    // Sorted, because tests flip seeded bytes of it.
    return try JSONSerialization.data(withJSONObject: object, options: .sortedKeys)
}

/// The sentence of the checkpoint error `body` throws, or nil when it succeeds.
func refusal(_ body: () throws -> Void) -> String? {
    do {
        try body()
        return nil
    } catch { return (error as? CheckpointError)?.description ?? "another kind of error: \(error)" }
}
