import Files
import Foundation
import JSON

/// Finds tokens by their text in a folder's `tokenizer.json`, for configurations that name one instead of its id. The file
/// is read when the first one is asked for.
final class TokenNames {
    private let file: URL
    private var ids: [String: UInt32]?

    init(_ directory: URL) { file = directory.appendingPathComponent("tokenizer.json") }

    /// The id of an added token, nil when there is none of this text or no tokenizer at all.
    func id(_ text: String) throws(CheckpointError) -> UInt32? {
        if let ids { return ids[text] }
        let found = OpenFile.isThere(file.path) ? try read() : [:]
        ids = found
        return found[text]
    }

    private func read() throws(CheckpointError) -> [String: UInt32] {
        let fields = try ConfigurationFields(json: try readFile(file, limit: 256 << 20), path: "tokenizer.json")
        guard case .array(let tokens) = fields.value("added_tokens") else { return [:] }
        var ids: [String: UInt32] = [:]
        for token in tokens {
            guard case .string(let text) = token["content"], let id = token["id"]?.integer else { continue }
            ids[text] = UInt32(exactly: id)
        }
        return ids
    }
}
