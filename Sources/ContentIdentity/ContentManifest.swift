/// What a service says of the contents it serves, to a peer that must serve the same.
public struct ContentSummary: Sendable, Equatable {
    /// Digest of all tensors: their names and what is in them.
    public var weights: ContentDigest
    /// Says which tensors differ.
    public var sketch: ContentSketch
    /// Digests of files beside the weights, by name, of those that are there.
    public var files: [String: ContentDigest]

    /// A summary of what is given.
    public init(weights: ContentDigest, sketch: ContentSketch, files: [String: ContentDigest]) {
        (self.weights, self.sketch, self.files) = (weights, sketch, files)
    }
}

/// All contents a service serves, by the digests of tensors and files.
public struct ContentManifest: Sendable, Equatable {
    /// What a peer is told.
    public let summary: ContentSummary
    private let names: [String]

    /// Of tensors and files by their names.
    public init(tensors: [String: ContentDigest], files: [String: ContentDigest]) {
        names = tensors.keys.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
        var sketch = ContentSketch()
        var entries: [UInt8] = []
        entries.reserveCapacity(names.count * ContentDigest.byteCount)
        for name in names {
            guard let digest = tensors[name] else { continue }
            let entry = ContentDigest(of: digest.bytes + name.utf8)
            sketch.add(name, entry)
            entries += entry.bytes
        }
        summary = ContentSummary(weights: ContentDigest(of: entries), sketch: sketch, files: files)
    }

    /// What sets a peer's contents apart from these, in words that follow "contents differ: "; nil when nothing does. A
    /// file that only one of both has sets nothing apart: not every service needs every file.
    public func difference(from peer: ContentSummary) -> String? {
        let files = summary.files.keys.sorted().filter { name in
            peer.files[name].map { $0 != summary.files[name] } ?? false
        }
        if let file = files.first { return "\(file)\(Self.others(files.count - 1, "file"))" }
        guard peer.weights != summary.weights else { return nil }
        let tensors = names.filter { summary.sketch.mayDiffer($0, from: peer.sketch) }
        guard let tensor = tensors.first else { return "a tensor that only one of both has" }
        return "tensor \(tensor)\(Self.others(tensors.count - 1, "tensor"))"
    }

    private static func others(_ count: Int, _ what: String) -> String {
        count == 0 ? "" : " and \(count) other \(what)\(count == 1 ? "" : "s")"
    }
}
