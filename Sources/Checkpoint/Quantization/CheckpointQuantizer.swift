import Files
import Foundation

/// Makes the FP8 variant of a checkpoint in the compressed-tensors layout, tensor by tensor and block by block: memory
/// does not grow with the checkpoint.
public struct CheckpointQuantizer {
    /// Most bytes of a tensor that are in memory at a time, unless one row is larger.
    public static let blockByteCount = 4 << 20
    /// Small files that belong to a checkpoint and go along unchanged.
    private static let companions = [
        "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
        "added_tokens.json", "chat_template.jinja", "LICENSE",
    ]

    /// How far a run has come.
    public struct Progress: Sendable, Equatable {
        /// Bytes of tensors read.
        public let bytesDone: Int
        /// Bytes of all tensors.
        public let bytesTotal: Int
        /// The tensor that was finished last.
        public let tensor: String
    }

    /// What a finished run made.
    public struct Summary: Sendable, Equatable {
        /// Tensors that are FP8 now.
        public let quantizedTensors: Int
        /// Tensors that kept their type.
        public let keptTensors: Int
        /// Bytes of all tensors before.
        public let bytesBefore: Int
        /// Bytes of all tensors after, scales included.
        public let bytesAfter: Int
    }

    private let checkpoint: Checkpoint
    private let plan: QuantizationPlan
    private let output: URL

    /// Checks the checkpoint and the place: `output` must not exist or be an empty folder.
    ///
    /// - Throws: `CheckpointError` that says what is in the way.
    public init(_ checkpoint: Checkpoint, output: URL) throws(CheckpointError) {
        self.checkpoint = checkpoint
        self.output = output
        plan = try QuantizationPlan(checkpoint)
        let path = output.path
        var isFolder: ObjCBool = false
        guard FileManager.default.fileExists(atPath: path, isDirectory: &isFolder) else { return }
        guard isFolder.boolValue, let content = try? FileManager.default.contentsOfDirectory(atPath: path),
            content.isEmpty
        else { throw CheckpointError(.unreadable, "\(path) is there already and is not an empty folder") }
    }

    /// Writes the new checkpoint. It is made under another name and appears complete; after an error nothing stays.
    ///
    /// - Throws: `CheckpointError` of reading or writing, with the file.
    public func run(_ report: (Progress) -> Void = { _ in }) throws(CheckpointError) -> Summary {
        let partial = output.deletingLastPathComponent()
            .appendingPathComponent(".\(output.lastPathComponent).partial-\(ProcessInfo.processInfo.processIdentifier)")
        do {
            try FileManager.default.createDirectory(at: partial, withIntermediateDirectories: true)
        } catch { throw CheckpointError(.unreadable, "\(partial.path) cannot be made: \(error.localizedDescription)") }
        do {
            let summary = try write(to: partial, report)
            if FileManager.default.fileExists(atPath: output.path) { try FileManager.default.removeItem(at: output) }
            try FileManager.default.moveItem(at: partial, to: output)
            return summary
        } catch {
            try? FileManager.default.removeItem(at: partial)
            throw error as? CheckpointError
                ?? CheckpointError(.unreadable, "\(output.path) cannot be written: \(error.localizedDescription)")
        }
    }

    private func write(to folder: URL, _ report: (Progress) -> Void) throws -> Summary {
        let json = try readFile(checkpoint.directory.appendingPathComponent("config.json"), limit: 1 << 20)
        try plan.configuration(from: json).write(to: folder.appendingPathComponent("config.json"))
        for name in Self.companions {
            let file = checkpoint.directory.appendingPathComponent(name)
            guard OpenFile.isThere(file.path) else { continue }
            // A copy of the content: what is a link here need not be one there.
            try readFile(file, limit: 1 << 30).write(to: folder.appendingPathComponent(name))
        }
        let total = checkpoint.tensors.values.reduce(0) { $0 + $1.entry.byteCount }
        var done = 0
        var weightMap: [String: String] = [:]
        var bytesAfter = 0
        for index in checkpoint.files.indices {
            let layout = layout(ofFile: index)
            let name = checkpoint.files[index].lastPathComponent
            for tensor in layout {
                weightMap[tensor.name] = name
                bytesAfter += tensor.shape.reduce(SafetensorsHeader.elementByteCount(tensor.storedType) ?? 0, *)
            }
            try writeFile(index, layout, to: folder.appendingPathComponent(name)) { tensor, bytes in
                done += bytes
                report(Progress(bytesDone: done, bytesTotal: total, tensor: tensor))
            }
        }
        if checkpoint.files.count > 1 { try writeIndex(weightMap, bytesAfter, folder) }
        return Summary(
            quantizedTensors: plan.quantized.count, keptTensors: checkpoint.tensors.count - plan.quantized.count,
            bytesBefore: total, bytesAfter: bytesAfter)
    }

    /// The tensors of the new file in the old order, each scale behind its weight.
    private func layout(ofFile index: Int) -> [(name: String, storedType: String, shape: [Int])] {
        var result: [(name: String, storedType: String, shape: [Int])] = []
        for (name, entry) in tensors(ofFile: index) {
            let isQuantized = plan.quantized.contains(name)
            result.append((name, isQuantized ? "F8_E4M3" : entry.storedType, entry.shape))
            if isQuantized { result.append((name + "_scale", "F32", [entry.shape[0], 1])) }
        }
        return result
    }

    private func tensors(ofFile index: Int) -> [(name: String, entry: TensorEntry)] {
        checkpoint.tensors.filter { $0.value.file == index }.map { ($0.key, $0.value.entry) }
            .sorted { ($0.entry.offset, $0.name) < ($1.entry.offset, $1.name) }
    }

    private func writeFile(
        _ index: Int, _ layout: [(name: String, storedType: String, shape: [Int])], to target: URL,
        _ finished: (String, Int) -> Void
    ) throws {
        let source = try FileHandle(forReadingFrom: checkpoint.files[index])
        defer { try? source.close() }
        var writer = try SafetensorsWriter.creating(target, tensors: layout)
        for (name, entry) in tensors(ofFile: index) {
            try convert(name, entry, source, &writer)
            finished(name, entry.byteCount)
        }
        try writer.finish()
    }

    /// Copies or quantises one tensor in blocks of whole rows.
    private func convert(
        _ name: String, _ entry: TensorEntry, _ source: FileHandle, _ writer: inout SafetensorsWriter
    ) throws {
        let isQuantized = plan.quantized.contains(name)
        let rowBytes = isQuantized ? entry.byteCount / entry.shape[0] : 1
        let block = max(1, Self.blockByteCount / rowBytes) * rowBytes
        try source.seek(toOffset: UInt64(entry.offset))
        var position = 0
        while position < entry.byteCount {
            let wanted = min(block, entry.byteCount - position)
            guard let bytes = try source.read(upToCount: wanted), bytes.count == wanted else {
                throw CheckpointError(.malformed, "the file ends within tensor \(name)")
            }
            if isQuantized {
                let row = position / rowBytes
                let rows = try RowQuantizer.quantize(
                    bytes, storedType: entry.storedType, columns: entry.shape[1], tensor: name, firstRow: row)
                try writer.write(rows.elements, to: name, at: row * entry.shape[1])
                try writer.write(rows.scales, to: name + "_scale", at: row * 4)
            } else {
                try writer.write(bytes, to: name, at: position)
            }
            position += wanted
        }
    }

    private func writeIndex(_ weightMap: [String: String], _ byteCount: Int, _ folder: URL) throws {
        let object: [String: Any] = ["metadata": ["total_size": byteCount], "weight_map": weightMap]
        let data = try JSONSerialization.data(withJSONObject: object, options: [.prettyPrinted, .sortedKeys])
        try data.write(to: folder.appendingPathComponent("model.safetensors.index.json"))
    }
}
