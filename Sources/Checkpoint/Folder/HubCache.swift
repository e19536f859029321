import Files
import Foundation

/// How `huggingface_hub` lays out what it downloads: `models--owner--name` with `refs/main`, which holds the name of a
/// folder in `snapshots`, whose files are links into `blobs`.
enum HubCache {
    /// Snapshots that a sentence lists.
    private static let listedCount = 8

    /// `owner/name` when a path has that form, or is a hub's address of one; nil when it cannot be a repository.
    static func repository(_ path: String) -> String? {
        var text = path[...]
        for prefix in ["https://", "http://", "hf://", "huggingface.co/", "hf.co/", "modelscope.cn/models/"]
        where text.hasPrefix(prefix) { text = text.dropFirst(prefix.count) }
        let parts = text.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count == 2 || (parts.count > 2 && text.count < path.count) else { return nil }
        let names = parts.prefix(2)
        let isName = { (part: Substring) in
            (1...96).contains(part.count) && part.first?.isLetter ?? false
                && part.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || "-_.".contains($0)) }
        }
        return names.allSatisfy(isName) ? names.joined(separator: "/") : nil
    }

    /// Where the cache folder of a repository lies, or would.
    static func folder(of repository: String) -> String {
        let environment = ProcessInfo.processInfo.environment
        let home = environment["HF_HOME"] ?? (environment["HOME"] ?? "~") + "/.cache/huggingface"
        let hub = environment["HF_HUB_CACHE"] ?? home + "/hub"
        return hub + "/models--" + repository.replacing("/", with: "--")
    }

    /// `owner/name` from the name of a cache folder.
    static func name(ofFolder folder: String) -> String? {
        guard folder.hasPrefix("models--") else { return nil }
        return String(folder.dropFirst("models--".count)).replacing("--", with: "/")
    }

    /// The folder of the revision that `refs/main` names; without one the only revision there is.
    static func mainRevision(_ cache: URL) throws(CheckpointError) -> URL {
        func refuse(_ reason: String) -> CheckpointError { CheckpointError(.unreadable, "\(cache.path) \(reason)") }
        let snapshots = cache.appendingPathComponent("snapshots")
        let all = ((try? FileManager.default.contentsOfDirectory(atPath: snapshots.path)) ?? [])
            .filter { !$0.hasPrefix(".") }.sorted()
        let shown =
            all.prefix(listedCount).map { snapshots.appendingPathComponent($0).path }.joined(separator: ", ")
            + (all.count > listedCount ? ", …" : "")
        let reference = cache.appendingPathComponent("refs/main")
        guard OpenFile.isThere(reference.path) else {
            guard all.count <= 1 else {
                throw refuse("has no refs/main and \(all.count) revisions: name the folder of one of them: \(shown)")
            }
            guard let only = all.first else {
                throw refuse("has no revision in \"snapshots\": the download is not complete; start it again")
            }
            return snapshots.appendingPathComponent(only)
        }
        let text = try reading { () throws(FileError) in try OpenFile.content(reference.path, limit: 1024) }
        let revision = String(decoding: text, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines)
        guard !revision.isEmpty, !revision.contains("/"), !revision.hasPrefix(".") else {
            throw refuse("has a refs/main that names no revision: \(revision.prefix(64))")
        }
        guard all.contains(revision) else {
            let there = all.isEmpty ? "no revision is there" : "there is \(shown)"
            throw refuse(
                "names the revision \(revision.prefix(64)) in refs/main, but \"snapshots\" has no such folder (\(there)): "
                    + "the download is not complete; start it again")
        }
        return snapshots.appendingPathComponent(revision)
    }
}
