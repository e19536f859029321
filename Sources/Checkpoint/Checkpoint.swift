import Foundation
import Glibc

/// A checkpoint folder: `config.json` and safetensors files, indexed but not mapped.
public struct Checkpoint: Sendable {
    /// One tensor with the file it lies in.
    public struct Location: Sendable, Equatable {
        /// Index into `files`.
        public let file: Int
        /// Place and shape.
        public let entry: TensorEntry
    }

    /// The folder.
    public let directory: URL
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

    /// Reads the configuration and all headers of `directory`.
    public init(directory: URL, decayConvention: DecayConvention = .a) throws(CheckpointError) {
        self.directory = directory
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

    private static func findFiles(_ directory: URL) throws(CheckpointError) -> [URL] {
        let single = directory.appendingPathComponent("model.safetensors")
        let index = directory.appendingPathComponent("model.safetensors.index.json")
        guard FileManager.default.fileExists(atPath: index.path) else {
            guard FileManager.default.fileExists(atPath: single.path) else {
                throw CheckpointError(
                    .unreadable, "\(directory.path) has neither model.safetensors nor model.safetensors.index.json")
            }
            return [single]
        }
        let fields = try ConfigurationFields(
            json: try readFile(index, limit: 64 << 20), path: "model.safetensors.index.json")
        guard let map = fields.value("weight_map") as? [String: String], !map.isEmpty else {
            throw fields.refuse("weight_map", "must name a file for every tensor")
        }
        let names = Set(map.values).sorted()
        guard names.count <= 4096 else { throw fields.refuse("weight_map", "names more than 4096 files") }
        for name in names where name.contains("/") || name.hasPrefix(".") {
            throw fields.refuse("weight_map", "names a file outside the folder: \(name)")
        }
        return names.map { directory.appendingPathComponent($0) }
    }

    private static func readHeader(_ file: URL) throws(CheckpointError) -> (Data, Int) {
        let name = file.lastPathComponent
        guard let size = (try? FileManager.default.attributesOfItem(atPath: file.path))?[.size] as? Int,
            let handle = try? FileHandle(forReadingFrom: file)
        else { throw CheckpointError(.unreadable, "\(name) is missing or cannot be read") }
        defer { try? handle.close() }
        let prefix = (try? handle.read(upToCount: 8)) ?? nil
        let length = try SafetensorsHeader.jsonByteCount(
            prefix: Array(prefix ?? Data()), fileByteCount: size, file: name)
        let json = ((try? handle.read(upToCount: length)) ?? nil) ?? Data()
        guard json.count == length else {
            throw CheckpointError(.malformed, "\(name): the header ends after \(json.count) of \(length) bytes")
        }
        return (json, size)
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
