import Files
import Foundation

/// The folder that holds a checkpoint's files, found from what a user calls it: the folder itself, a link to it, or a
/// hub's cache folder `models--owner--name`, whose main revision is meant.
public struct ModelFolder: Sendable, Equatable {
    /// Where `config.json` lies.
    public let directory: URL
    /// What the model is called: `owner/name` in a hub's cache, else the folder's name.
    public let name: String

    /// Finds it. Throws a sentence that says what stands at `path` instead, and what to do.
    public init(_ path: String) throws(CheckpointError) {
        let given = URL(fileURLWithPath: path).standardizedFileURL
        try Self.requireFolder(path, given)
        let main = try Self.mainRevision(of: given)
        directory = main ?? given
        name = Self.name(of: directory) ?? given.lastPathComponent
    }

    /// A file of the folder.
    public func file(_ name: String) -> URL { directory.appendingPathComponent(name) }

    /// True when the folder has something of this name, be it a link without a target.
    public func has(_ name: String) -> Bool { OpenFile.isThere(file(name).path) }

    // MARK: What was named

    private static func requireFolder(_ path: String, _ url: URL) throws(CheckpointError) {
        var isFolder: ObjCBool = false
        guard FileManager.default.fileExists(atPath: url.path, isDirectory: &isFolder) else {
            throw CheckpointError(.unreadable, absence(path, url))
        }
        guard !isFolder.boolValue else { return }
        if let sentence = FormatHint.sentence(ofFile: url.path) {
            throw CheckpointError(.unreadable, "\(path) \(sentence)")
        }
        throw CheckpointError(
            .unreadable, "\(path) is a file; what is asked for is the folder it lies in: \(folder(path))")
    }

    private static func folder(_ path: String) -> String {
        let parts = path.split(separator: "/", omittingEmptySubsequences: false).dropLast()
        return parts.isEmpty ? "." : parts.count == 1 && path.hasPrefix("/") ? "/" : parts.joined(separator: "/")
    }

    private static func absence(_ path: String, _ url: URL) -> String {
        if let target = try? FileManager.default.destinationOfSymbolicLink(atPath: url.path) {
            return "\(path) is a link to \(target), and nothing is there"
        }
        if path.hasPrefix("~") {
            return "\(path) is not there: only a shell turns ~ into a folder, and not inside quotes or behind a ="
        }
        if let repository = HubCache.repository(path) {
            return
                "\(path) is no folder here. If the repository \(repository) of a hub is meant: nothing is downloaded by "
                + "itself; get it with \"hf download \(repository)\" and name the folder that it prints, "
                + "or \(HubCache.folder(of: repository))"
        }
        return "\(path) is not there"
    }

    // MARK: A hub's cache

    /// `owner/name` when `directory` is a revision in a hub's cache.
    private static func name(of directory: URL) -> String? {
        let snapshots = directory.deletingLastPathComponent()
        guard snapshots.lastPathComponent == "snapshots" else { return nil }
        let cache = snapshots.deletingLastPathComponent()
        return HubCache.name(ofFolder: cache.lastPathComponent) ?? cache.lastPathComponent
    }

    /// The main revision when `folder` is a cache folder (or its `snapshots`), nil when it is a folder of files.
    private static func mainRevision(of folder: URL) throws(CheckpointError) -> URL? {
        let isThere = { (name: String) in OpenFile.isThere(folder.appendingPathComponent(name).path) }
        guard !isThere("config.json") else { return nil }
        let isSnapshots =
            folder.lastPathComponent == "snapshots"
            && folder.deletingLastPathComponent().lastPathComponent.hasPrefix("models--")
        if isSnapshots { return try HubCache.mainRevision(folder.deletingLastPathComponent()) }
        guard isThere("snapshots") || folder.lastPathComponent.hasPrefix("models--") else { return nil }
        return try HubCache.mainRevision(folder)
    }
}
