import ContentIdentity
import Foundation

extension Checkpoint {
    /// Files beside the weights from which answers follow, where they are there; what config.json says is in the
    /// fingerprint.
    static let servedFiles = [
        "chat_template.jinja", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
    ]
    private static let longestServedFile = 256 << 20

    /// The same checkpoint, whose tensors are digested while they are read, with what `cache` knows already.
    public func collectingDigests(in cache: DigestCache?) -> Checkpoint {
        var checkpoint = self
        checkpoint.ledger = ContentLedger(files: files, tensors: tensors, cache: cache)
        return checkpoint
    }

    /// The digests of everything that is served: reads the tensors that neither a service nor an earlier start has read.
    /// Call it when the service has read its own.
    ///
    /// - Throws: `CheckpointError` when a file cannot be read.
    public func contents() throws(CheckpointError) -> ContentManifest {
        let ledger = ledger ?? ContentLedger(files: files, tensors: tensors, cache: nil)
        let tensors = try ledger.complete { done, total in
            onProgress?(LoadProgress(.digesting, done: done, total: total))
        }
        var digests: [String: ContentDigest] = [:]
        for name in Self.servedFiles {
            let file = directory.appendingPathComponent(name)
            guard FileManager.default.fileExists(atPath: file.path) else { continue }
            digests[name] = ContentDigest(of: Array(try readFile(file, limit: Self.longestServedFile)))
        }
        return ContentManifest(tensors: tensors, files: digests)
    }
}
