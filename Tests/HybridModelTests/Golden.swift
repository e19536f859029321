import Checkpoint
import Foundation
import HybridModel
import Numerics
import Testing

/// A golden checkpoint with the arrays that an independent implementation computed for it.
struct Golden {
    static let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .appendingPathComponent("Fixtures/golden")

    let checkpoint: Checkpoint
    private let header: SafetensorsHeader
    private let data: Data

    init(_ name: String) throws {
        let directory = Self.folder.appendingPathComponent(name)
        checkpoint = try Checkpoint(directory: directory)
        data = try Data(contentsOf: directory.appendingPathComponent("golden.safetensors"))
        let length = try SafetensorsHeader.jsonByteCount(
            prefix: Array(data.prefix(8)), fileByteCount: data.count, file: "golden")
        header = try SafetensorsHeader(json: data[8..<8 + length], fileByteCount: data.count, file: "golden")
    }

    var names: [String] { header.tensors.keys.sorted() }

    func floats(_ name: String) throws -> [Float] {
        let bytes = try slice(name)
        return bytes.withUnsafeBytes { raw in
            (0..<raw.count / 4).map { raw.loadUnaligned(fromByteOffset: 4 * $0, as: Float.self) }
        }
    }

    func integers(_ name: String) throws -> [Int32] {
        let bytes = try slice(name)
        return bytes.withUnsafeBytes { raw in
            (0..<raw.count / 4).map { raw.loadUnaligned(fromByteOffset: 4 * $0, as: Int32.self) }
        }
    }

    func tokens(_ name: String) throws -> [UInt32] { try integers(name).map(UInt32.init) }

    private func slice(_ name: String) throws -> Data {
        let entry = try #require(header.tensors[name], "golden tensor \(name)")
        return Data(data[entry.offset..<entry.offset + entry.byteCount])
    }
}

/// The whole model with its own memory, for one test.
struct Rig {
    let forward: ReferenceForward
    let state: StateMemory
    let pages: [Int]
    let vocabulary: Int

    init(_ checkpoint: Checkpoint, threads: Int = 2, shards: Int = 1, slots: Int = 1) throws {
        forward = try ReferenceForward(
            checkpoint: checkpoint, team: ThreadTeam(threadCount: threads), maximumRows: 256, shards: shards)
        state = try StateMemory(configuration: checkpoint.configuration, slotCount: slots, pageCount: slots * 8)
        pages = Array(0..<8)
        vocabulary = checkpoint.configuration.vocabularySize
    }

    func prefill(_ tokens: [UInt32], slot: Int = 0, chunk: Int = 256) -> [Float] {
        forward.prefill(tokens, slot: slot, pages: pages.map { $0 + slot * 8 }, chunk: chunk, state: state)
    }

    func decode(_ token: UInt32, position: Int, slot: Int = 0) -> [Float] {
        forward.logits([segment(token, position, slot)], state: state)
    }

    func segment(_ token: UInt32, _ position: Int, _ slot: Int) -> Segment {
        Segment(
            slot: slot, pages: pages.map { $0 + slot * 8 }, position: position, tokens: [token])
    }
}

func largestDifference(_ a: some Collection<Float>, _ b: some Collection<Float>) -> Float {
    guard a.count == b.count else { return .infinity }
    return zip(a, b).reduce(0) { $1.0.isNaN || $1.1.isNaN ? .infinity : max($0, abs($1.0 - $1.1)) }
}

func argmax(_ row: some Collection<Float>) -> UInt32 {
    var best = (index: 0, value: -Float.infinity)
    for (index, value) in row.enumerated() where value > best.value { best = (index, value) }
    return UInt32(best.index)
}
