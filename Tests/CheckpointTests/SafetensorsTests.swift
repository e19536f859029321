import Checkpoint
import Foundation
import Numerics
import TestSupport
import Testing

struct SafetensorsTests {
    private static let tensors = [
        StoredTensor.floats("a.weight", [2, 3]), StoredTensor.floats("b", [4], step: 2),
        StoredTensor("c.weight", "BF16", [2, 2], [0, 0x3F, 0x80, 0x3F, 0, 0x40, 0, 0xC0]),
    ]

    private func parse(_ json: String, dataBytes: Int = 64) -> String? {
        refusal {
            _ = try SafetensorsHeader(json: Data(json.utf8), fileByteCount: 8 + json.utf8.count + dataBytes, file: "f")
        }
    }

    private func entry(_ offsets: String, type: String = "F32", shape: String = "[4]") -> String {
        #"{"dtype": "\#(type)", "shape": \#(shape), "data_offsets": \#(offsets)}"#
    }

    @Test func everyTruncationIsRefused() throws {
        let folder = try CheckpointFolder()
        let whole = try safetensors(Self.tensors)
        for count in 0..<whole.count {
            try folder.write(whole.prefix(count), "model.safetensors")
            let message = refusal { _ = try folder.open() }
            #expect(message?.contains("model.safetensors") == true, "\(count) bytes: \(message ?? "accepted")")
        }
        try folder.write(whole, "model.safetensors")
        #expect(try folder.open().tensors.count == 3)
    }

    @Test(arguments: [0, 1, UInt64(100 << 20) + 1, 1 << 31, 1 << 32, 1 << 63, .max, .max - 7])
    func lengthsBeyondTheFileAreRefused(length: UInt64) throws {
        var data = try safetensors(Self.tensors)
        withUnsafeBytes(of: length.littleEndian) { data.replaceSubrange(0..<8, with: $0) }
        let folder = try CheckpointFolder()
        try folder.write(data, "model.safetensors")
        #expect(refusal { _ = try folder.open() } != nil)
    }

    @Test func placesAndShapesAreChecked() {
        #expect(parse(#"{"x": \#(entry("[0, 16]"))}"#) == nil)
        #expect(parse(#"{"x": \#(entry("[0, 16]")), "y": \#(entry("[12, 28]"))}"#)?.contains("overlaps") == true)
        #expect(parse(#"{"x": \#(entry("[0, 16]")), "y": \#(entry("[0, 16]"))}"#)?.contains("overlaps") == true)
        for (offsets, shape) in [
            ("[56, 72]", "[4]"), ("[16, 0]", "[4]"), ("[0, 15]", "[4]"), ("[-16, 0]", "[4]"), ("[0]", "[4]"),
            ("[0, 16, 32]", "[4]"), ("[0.5, 16.5]", "[4]"), ("[0, 1e300]", "[4]"), ("null", "[4]"),
            ("[0, 16]", "[-4]"), ("[0, 16]", "[4, 4]"), ("[0, 16]", "[4294967296, 4294967296]"),
            ("[0, 16]", "[8000000000000000, 8000000000000000]"), ("[0, 16]", "null"),
            ("[0, 16]", "[1, 1, 1, 1, 1, 1, 1, 1, 4]"), ("[9223372036854775807, 9223372036854775807]", "[0]"),
        ] {
            let message = parse(#"{"odd one": \#(entry(offsets, shape: shape))}"#)
            #expect(message?.contains("odd one") == true, "\(offsets) \(shape): \(message ?? "accepted")")
        }
        #expect(parse(#"{"x": \#(entry("[0, 16]", type: "F31"))}"#)?.contains("F31") == true)
        for json in [#"{"x": 1}"#, #"{"x": []}"#, #"{"x": {"shape": [1]}}"#, "[]", "", "{"] {
            #expect(parse(json) != nil)
        }
    }

    @Test(arguments: [31, 32, 33])
    func mutatedHeadersNeverCrash(seed: UInt64) throws {
        let whole = try safetensors(Self.tensors)
        let headerBytes = whole.count - Self.tensors.map(\.bytes.count).reduce(0, +)
        var random = SeededRandom(seed: seed)
        for _ in 0..<3000 {
            var data = whole
            for _ in 0...(random.next() % 4) {
                data[Int(random.next() % UInt64(headerBytes))] = UInt8(truncatingIfNeeded: random.next())
            }
            _ = refusal {
                let length = try SafetensorsHeader.jsonByteCount(
                    prefix: Array(data.prefix(8)), fileByteCount: data.count, file: "f")
                let header = try SafetensorsHeader(json: data[8..<8 + length], fileByteCount: data.count, file: "f")
                for entry in header.tensors.values {
                    #expect(entry.offset >= header.dataStart && entry.offset + entry.byteCount <= data.count)
                }
            }
        }
    }

    @Test func tensorErrorsNameTheTensor() throws {
        let folder = try CheckpointFolder()
        let odd = StoredTensor("odd.weight", "F16", [2, 2], [UInt8](repeating: 0, count: 8))
        let unscaled = StoredTensor("f8.weight", "F8_E4M3", [2, 2], [1, 2, 3, 4])
        try folder.write(safetensors(Self.tensors + [odd, unscaled]), "model.safetensors")
        let set = try TensorSet(folder.open(), owns: { $0 != "b" })
        func matrix(_ name: String, _ rows: Int, _ columns: Int) -> String {
            refusal { _ = try set.matrix(name, rows: rows, columns: columns) } ?? "accepted"
        }
        #expect(matrix("a.weight", 2, 3) == "accepted")
        #expect(matrix("absent.weight", 2, 3) == "tensor absent.weight is missing")
        #expect(matrix("a.weight", 3, 2).contains("a.weight has shape [2, 3]"))
        #expect(matrix("odd.weight", 2, 2).contains("odd.weight has dtype F16"))
        #expect(matrix("f8.weight", 2, 2) == "tensor f8.weight_scale is missing")
        #expect(refusal { _ = try set.vector("odd.weight", count: 4) }?.contains("odd.weight") == true)
        #expect(refusal { _ = try set.vector("b", count: 4) } == "tensor b is missing")
    }

    @Test func shardedCheckpointEqualsASingleFile() throws {
        let single = try CheckpointFolder()
        try single.write(safetensors(Self.tensors), "model.safetensors")
        let sharded = try CheckpointFolder()
        try sharded.write(safetensors([Self.tensors[2]]), "model-00001-of-00002.safetensors")
        try sharded.write(safetensors(Array(Self.tensors[..<2])), "model-00002-of-00002.safetensors")
        try sharded.write(index: [
            "a.weight": "model-00002-of-00002.safetensors", "b": "model-00002-of-00002.safetensors",
            "c.weight": "model-00001-of-00002.safetensors",
        ])
        let sets = try [single, sharded].map { try TensorSet($0.open(), owns: { _ in true }) }
        #expect(sets[0].byteCount == sets[1].byteCount)
        for (name, rows, columns) in [("a.weight", 2, 3), ("c.weight", 2, 2)] {
            let both = try sets.map { try $0.matrix(name, rows: rows, columns: columns) }
            #expect(both[0].elementType == both[1].elementType)
            #expect(memcmp(both[0].elements, both[1].elements, both[0].byteCount) == 0)
        }
        let vectors = try sets.map { try $0.vector("b", count: 4) }
        let values = withExtendedLifetime(sets) { vectors.map { vector in (0..<4).map { vector[$0] } } }
        #expect(values == [[0, 2, 4, 6], [0, 2, 4, 6]])
    }

    @Test(arguments: [WeightPlacement.copied, .mapped])
    func eightBitWeightsThatAreNotNumbersAreRefused(placement: WeightPlacement) throws {
        let folder = try CheckpointFolder()
        var bytes = [UInt8](repeating: 0x38, count: 6)
        bytes[4] = 0xFF
        let scales = StoredTensor.floats("a.weight_scale", [3, 1])
        try folder.write(
            safetensors([StoredTensor("a.weight", "F8_E4M3", [3, 2], bytes), scales]), "model.safetensors")
        var checkpoint = try folder.open()
        checkpoint.placement = placement
        let set = try TensorSet(checkpoint) { _ in true }
        let message = refusal { _ = try set.matrix("a.weight", rows: 3, columns: 2) }
        #expect(message == "tensor a.weight holds a NaN in row 2")
    }

    @Test func aFileThatShrankIsAnErrorThatNamesTheTensor() throws {
        let folder = try CheckpointFolder()
        let data = try safetensors([.floats("a", [4]), .floats("b", [4])])
        try folder.write(data, "model.safetensors")
        var checkpoint = try folder.open()
        checkpoint.placement = .copied
        try folder.write(data.dropLast(8), "model.safetensors")
        let message = refusal { _ = try TensorSet(checkpoint) { _ in true } }
        #expect(message == "tensor b cannot be read after 8 of 16 bytes")
    }

    @Test func indexIsChecked() throws {
        let folder = try CheckpointFolder()
        let data = try safetensors([Self.tensors[0]])
        try folder.write(data, "one.safetensors")
        try folder.write(data, "two.safetensors")
        func message(_ index: [String: String]) throws -> String {
            try folder.write(index: index)
            return refusal { _ = try folder.open() } ?? "accepted"
        }
        #expect(try message(["a.weight": "one.safetensors"]) == "accepted")
        #expect(try message(["a.weight": "one.safetensors", "b": "two.safetensors"]).contains("a.weight is in more"))
        #expect(try message(["a.weight": "gone.safetensors"]).contains("gone.safetensors"))
        #expect(try message(["a.weight": "../one.safetensors"]).contains("outside the folder"))
        #expect(try message([:]).contains("weight_map"))
        try folder.write(Data("{".utf8), "model.safetensors.index.json")
        #expect(refusal { _ = try folder.open() }?.contains("model.safetensors.index.json") == true)
    }

    @Test func fingerprintTellsCheckpointsApart() throws {
        let folder = try CheckpointFolder()
        try folder.write(safetensors(Self.tensors), "model.safetensors")
        let first = try folder.open().fingerprint
        #expect(try folder.open().fingerprint == first)
        var renamed = Self.tensors
        renamed[1].name = "d"
        try folder.write(safetensors(renamed), "model.safetensors")
        #expect(try folder.open().fingerprint != first)
        try folder.write(safetensors(Self.tensors), "model.safetensors")
        try folder.write(configuration(["rope_theta": 7_000_000]), "config.json")
        #expect(try folder.open().fingerprint != first)
    }
}
