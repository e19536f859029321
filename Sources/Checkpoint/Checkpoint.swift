import Files
import Foundation
import JSON

/// A checkpoint folder: `config.json` and safetensors files, indexed but not mapped.
public struct Checkpoint: Sendable {
    /// One tensor with the file it lies in.
    public struct Location: Sendable, Equatable {
        /// Index into `files`.
        public let file: Int
        /// Place and shape.
        public let entry: TensorEntry
    }

    /// The folder that the files lie in.
    public let directory: URL
    /// What the model is called after its folder.
    public let name: String
    /// What `config.json` says.
    public let configuration: ModelConfiguration
    /// safetensors files.
    public let files: [URL]
    /// All tensors by their published names.
    public let tensors: [String: Location]
    /// A hexadecimal digest of the configuration and of every tensor's name, type, shape and place. Two services whose
    /// fingerprints differ do not serve the same checkpoint.
    public let fingerprint: String
    /// Where the tensors that a service owns are put.
    public var placement = WeightPlacement.automatic
    /// Where the digests of tensors are collected while they are read; nil for nowhere.
    public var ledger: ContentLedger?
    /// Told of what is read of the weights, from the thread that reads, after every block of at most a mebibyte.
    public var onProgress: (@Sendable (LoadProgress) -> Void)?

    /// Reads the configuration and all headers of a checkpoint; `directory` may be whatever `ModelFolder` finds.
    ///
    /// - Throws: `CheckpointError` that names the file, field or tensor.
    public init(directory given: URL, decayConvention: DecayConvention = .a) throws(CheckpointError) {
        try self.init(ModelFolder(given.path), decayConvention: decayConvention)
    }

    /// Reads the configuration and all headers of a checkpoint.
    ///
    /// - Throws: `CheckpointError` that names the file, field or tensor.
    public init(_ folder: ModelFolder, decayConvention: DecayConvention = .a) throws(CheckpointError) {
        (directory, name) = (folder.directory, folder.name)
        configuration = try ModelConfiguration(directory: directory, decayConvention: decayConvention)
        files = try Self.findFiles(directory)
        var digest = StableDigest()
        digest.add(try readFile(directory.appendingPathComponent("config.json"), limit: 1 << 20))
        digest.add(Data(decayConvention.rawValue.utf8))
        var tensors: [String: Location] = [:]
        for (index, file) in files.enumerated() {
            let (json, size) = try Self.readHeader(file)
            digest.add(json)
            let header = try SafetensorsHeader(json: json, fileByteCount: size, file: file.lastPathComponent)
            for (name, entry) in header.tensors {
                guard tensors.updateValue(Location(file: index, entry: entry), forKey: name) == nil else {
                    throw CheckpointError(.malformed, "tensor \(name) is in more than one file")
                }
            }
        }
        self.tensors = tensors
        fingerprint = digest.hexadecimal
    }

    /// What `generation_config.json` asks of requests; nothing when the folder has none. Throws what it asks for and is not
    /// offered.
    public func generationDefaults() throws(CheckpointError) -> GenerationDefaults {
        try GenerationDefaults(directory: directory, vocabularySize: configuration.vocabularySize)
    }

    private static func findFiles(_ directory: URL) throws(CheckpointError) -> [URL] {
        let single = directory.appendingPathComponent("model.safetensors")
        let index = directory.appendingPathComponent("model.safetensors.index.json")
        guard OpenFile.isThere(index.path) else {
            guard OpenFile.isThere(single.path) else {
                throw CheckpointError(
                    .unreadable,
                    "\(directory.path) has neither model.safetensors nor model.safetensors.index.json"
                        + FormatHint.sentence(inFolder: directory, without: "model.safetensors"))
            }
            return [single]
        }
        let files = try indexed(index).map { directory.appendingPathComponent($0) }
        let missing = files.filter { !OpenFile.isThere($0.path) }
        guard let first = missing.first else { return files }
        let partial = FormatHint.incomplete(directory).map { " (\($0))" } ?? ""
        throw CheckpointError(
            .unreadable,
            "\(first.lastPathComponent) is missing in \(directory.path), one of \(missing.count) missing of the \(files.count) "
                + "files that model.safetensors.index.json names: the download is not complete\(partial); start it again"
        )
    }

    /// Names of the files of an index.
    private static func indexed(_ index: URL) throws(CheckpointError) -> [String] {
        let fields = try ConfigurationFields(
            json: try readFile(index, limit: 64 << 20), path: "model.safetensors.index.json")
        guard case .object(let map) = fields.value("weight_map"), !map.isEmpty else {
            throw fields.refuse("weight_map", "must name a file for every tensor")
        }
        var names: Set<String> = []
        for entry in map {
            guard case .string(let name) = entry.value else {
                throw fields.refuse(
                    "weight_map", "must name a file for every tensor, not \(ConfigurationFields.shown(entry.value))")
            }
            names.insert(name)
        }
        guard names.count <= 4096 else { throw fields.refuse("weight_map", "names more than 4096 files") }
        for name in names.sorted() where name.contains("/") || name.hasPrefix(".") || name.isEmpty {
            throw fields.refuse("weight_map", "names a file outside the folder: \(name)")
        }
        return names.sorted()
    }

    private static func readHeader(_ url: URL) throws(CheckpointError) -> (Data, Int) {
        let file = try reading { () throws(FileError) in try OpenFile(url.path) }
        let prefix = try reading { () throws(FileError) in try file.read(64) }
        if let kind = FileKind(beginning: prefix) {
            throw CheckpointError(.unreadable, "\(file.name) \(kind.sentence)")
        }
        let length = try SafetensorsHeader.jsonByteCount(
            prefix: Array(prefix.prefix(8)), fileByteCount: file.byteCount, file: file.name)
        let json = try reading { () throws(FileError) in try file.read(length, at: 8) }
        guard json.count == length else {
            throw CheckpointError(
                .malformed, "\(file.name): the header ends after \(json.count) of \(length) bytes")
        }
        return (Data(json), file.byteCount)
    }
}

/// FNV-1a over two lanes: stable across machines and builds, for telling checkpoints apart, not for security.
struct StableDigest {
    private var first: UInt64 = 0xCBF2_9CE4_8422_2325
    private var second: UInt64 = 0x8422_2325_CBF2_9CE4

    mutating func add(_ data: Data) {
        for byte in data {
            first = (first ^ UInt64(byte)) &* 0x0000_0100_0000_01B3
            second = (second ^ UInt64(byte ^ 0x5A)) &* 0x0000_0100_0000_01B3
        }
        first ^= UInt64(data.count)
    }

    var hexadecimal: String {
        [first, second].map { value in
            let digits = String(value, radix: 16)
            return String(repeating: "0", count: 16 - digits.count) + digits
        }.joined()
    }
}
