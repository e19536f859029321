import Foundation

/// Writes one safetensors file: the header first, then the bytes of its tensors at the places the header gives, in any
/// order, so that no tensor need be in memory as a whole.
struct SafetensorsWriter: ~Copyable {
    private let handle: FileHandle
    private let name: String
    private let entries: [String: TensorEntry]
    private var missingBytes: Int

    /// Creates the file with room for `tensors`, laid out in the order given.
    static func creating(
        _ file: URL, tensors: [(name: String, storedType: String, shape: [Int])]
    ) throws(CheckpointError) -> SafetensorsWriter {
        let (json, ranges) = try header(tensors)
        let start = 8 + json.count
        let entries = zip(tensors, ranges).map { tensor, range in
            let entry = TensorEntry(
                storedType: tensor.storedType, shape: tensor.shape, offset: start + range.lowerBound,
                byteCount: range.count)
            return (tensor.name, entry)
        }
        let name = file.lastPathComponent
        guard FileManager.default.createFile(atPath: file.path, contents: nil),
            let handle = try? FileHandle(forWritingTo: file)
        else { throw CheckpointError(.unreadable, "\(name) cannot be created") }
        let length = withUnsafeBytes(of: UInt64(json.count).littleEndian) { Data($0) }
        try put(length + json, at: 0, handle, name)
        return SafetensorsWriter(
            handle: handle, name: name, entries: Dictionary(entries) { $1 },
            missingBytes: ranges.last?.upperBound ?? 0)
    }

    /// Puts `bytes` at byte `position` of a tensor.
    mutating func write(_ bytes: Data, to tensor: String, at position: Int) throws(CheckpointError) {
        guard let entry = entries[tensor], position >= 0, position + bytes.count <= entry.byteCount else {
            throw CheckpointError(.tensor, "\(name): \(bytes.count) bytes do not fit into tensor \(tensor)")
        }
        try Self.put(bytes, at: entry.offset + position, handle, name)
        missingBytes -= bytes.count
    }

    /// Flushes and closes the file; every byte must have been written once.
    consuming func finish() throws(CheckpointError) {
        guard missingBytes == 0 else { throw CheckpointError(.malformed, "\(name) lacks \(missingBytes) bytes") }
        do {
            try handle.synchronize()
            try handle.close()
        } catch { throw CheckpointError(.unreadable, "\(name) cannot be written: \(error.localizedDescription)") }
    }

    private static func put(
        _ bytes: Data, at offset: Int, _ handle: FileHandle, _ name: String
    ) throws(CheckpointError) {
        do {
            try handle.seek(toOffset: UInt64(offset))
            try handle.write(contentsOf: bytes)
        } catch { throw CheckpointError(.unreadable, "\(name) cannot be written: \(error.localizedDescription)") }
    }

    /// The JSON header, padded with blanks to a multiple of eight bytes, and the range of each tensor after it.
    private static func header(
        _ tensors: [(name: String, storedType: String, shape: [Int])]
    ) throws(CheckpointError) -> (Data, [Range<Int>]) {
        var object: [String: Any] = ["__metadata__": ["format": "pt"]]
        var ranges: [Range<Int>] = []
        for tensor in tensors {
            guard let size = SafetensorsHeader.elementByteCount(tensor.storedType) else {
                throw CheckpointError(.tensor, "tensor \(tensor.name) has the unknown dtype \(tensor.storedType)")
            }
            let start = ranges.last?.upperBound ?? 0
            ranges.append(start..<start + tensor.shape.reduce(size, *))
            object[tensor.name] = [
                "dtype": tensor.storedType, "shape": tensor.shape,
                "data_offsets": [start, ranges[ranges.count - 1].upperBound],
            ]
        }
        guard var json = try? JSONSerialization.data(withJSONObject: object, options: .sortedKeys) else {
            throw CheckpointError(.malformed, "the names of the tensors cannot be written as JSON")
        }
        json.append(Data(repeating: UInt8(ascii: " "), count: (8 - json.count % 8) % 8))
        return (json, ranges)
    }
}
