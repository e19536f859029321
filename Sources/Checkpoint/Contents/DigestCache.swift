import ContentIdentity
import Foundation
import Glibc

/// A folder that keeps the digests of tensors beside the stamp of the file they lie in, so that nothing is read twice
/// to be digested. Processes share it: each appends whole lines, and believes only lines that are whole.
///
/// A file of the folder is `KEY.digests`: a line with the stamp, then lines of 32 hexadecimal digits, a space and a
/// tensor's name.
public struct DigestCache: Sendable {
    /// Files beyond which the oldest are removed.
    package static let maximumFiles = 512
    private static let longestFile = 64 << 20
    private let folder: URL

    /// The cache in `folder`, which is made when it is not there. Nil when it is not this user's alone to write: what
    /// others can write proves nothing.
    public init?(folder: URL) {
        let files = FileManager.default
        try? files.createDirectory(
            at: folder, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
        var status = stat()
        guard stat(folder.path, &status) == 0, status.st_mode & S_IFMT == S_IFDIR, status.st_uid == geteuid(),
            status.st_mode & 0o022 == 0, access(folder.path, W_OK) == 0
        else { return nil }
        self.folder = folder
    }

    /// The cache where users' programs keep theirs: below `XDG_CACHE_HOME`, or `.cache` of the home folder, or a folder
    /// of this user's among the temporary ones. Nil when none can be had.
    public static func standard(environment: [String: String]) -> DigestCache? {
        let homes = [environment["XDG_CACHE_HOME"], environment["HOME"].map { $0 + "/.cache" }]
        let places =
            homes.compactMap { $0 }.filter { $0.hasPrefix("/") }.map {
                URL(fileURLWithPath: $0).appendingPathComponent("ironling/digests")
            } + [FileManager.default.temporaryDirectory.appendingPathComponent("ironling-digests-\(geteuid())")]
        return places.lazy.compactMap { DigestCache(folder: $0) }.first
    }

    /// Bytes of what is known of a file with this stamp; 0 when nothing is, or too much to be true.
    func byteCount(of stamp: FileStamp) -> Int {
        var status = stat()
        guard stat(place(stamp).path, &status) == 0, status.st_size <= Self.longestFile else { return 0 }
        return Int(status.st_size)
    }

    /// What is known of a file with this stamp, by tensor, and where the next call goes on: from `offset` on, which a call
    /// returned before, only what was added since. A name that is given two digests at once is not known.
    func digests(of stamp: FileStamp, from offset: Int) -> (digests: [String: ContentDigest], end: Int) {
        guard byteCount(of: stamp) > offset, let handle = try? FileHandle(forReadingFrom: place(stamp)) else {
            return ([:], offset)
        }
        defer { try? handle.close() }
        guard (try? handle.seek(toOffset: UInt64(offset))) != nil,
            let data = (try? handle.read(upToCount: Self.longestFile)) ?? nil
        else { return ([:], offset) }
        // What follows the last line feed is not whole yet.
        let whole = data.prefix((data.lastIndex(of: UInt8(ascii: "\n")) ?? -1) + 1)
        return (Self.parse(Array(whole), stamp: offset == 0 ? stamp.text : nil), offset + whole.count)
    }

    /// Reads lines; of a whole file the first must be `stamp`.
    package static func parse(_ bytes: [UInt8], stamp: String?) -> [String: ContentDigest] {
        var lines = bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false).dropLast()
        if let stamp {
            guard let first = lines.popFirst(), first.elementsEqual(stamp.utf8) else { return [:] }
        }
        var digests: [String: ContentDigest] = [:]
        var doubtful: Set<String> = []
        for line in lines where line.count > 33 && line[line.startIndex + 32] == UInt8(ascii: " ") {
            guard let digest = ContentDigest(hexadecimal: String(decoding: line.prefix(32), as: UTF8.self)),
                let name = String(validating: line.dropFirst(33), as: UTF8.self)
            else { continue }
            if let known = digests.updateValue(digest, forKey: name), known != digest { doubtful.insert(name) }
        }
        for name in doubtful { digests[name] = nil }
        return digests
    }

    /// Adds digests of tensors of a file with this stamp. What cannot be written is computed again another time.
    func add(_ digests: [String: ContentDigest], to stamp: FileStamp) {
        let lines = digests.filter { !$0.key.utf8.contains(UInt8(ascii: "\n")) }.map { "\($0.value) \($0.key)\n" }
        guard !lines.isEmpty else { return }
        var descriptor = opened(stamp)
        if descriptor < 0 {
            prune()
            create(stamp)
            descriptor = opened(stamp)
        }
        guard descriptor >= 0 else { return }
        defer { close(descriptor) }
        // One call, so that lines of several processes do not mix.
        _ = Self.write(lines.joined(), to: descriptor)
    }

    /// Opens a file to add to it; negative when there is none. One that does not begin with its stamp, as a machine that
    /// lost its power may leave it, is removed.
    private func opened(_ stamp: FileStamp) -> Int32 {
        let path = place(stamp).path
        let descriptor = open(path, O_RDWR | O_APPEND | O_CLOEXEC)
        guard descriptor >= 0 else { return descriptor }
        var line = [UInt8](repeating: 0, count: stamp.text.utf8.count + 1)
        let count = pread(descriptor, &line, line.count, 0)
        guard count == line.count, line.elementsEqual("\(stamp.text)\n".utf8) else {
            close(descriptor)
            unlink(path)
            return -1
        }
        return descriptor
    }

    /// Makes the file with its first line, for all who look at once: under another name first. Nothing waits for the disk:
    /// what is lost is computed again.
    private func create(_ stamp: FileStamp) {
        let draft = folder.appendingPathComponent("\(stamp.key).\(getpid()).draft").path
        let descriptor = open(draft, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { return }
        if Self.write("\(stamp.text)\n", to: descriptor) { link(draft, place(stamp).path) }
        close(descriptor)
        unlink(draft)
    }

    private static func write(_ text: String, to descriptor: Int32) -> Bool {
        var text = text
        return text.withUTF8 { Glibc.write(descriptor, $0.baseAddress, $0.count) == $0.count }
    }

    private func place(_ stamp: FileStamp) -> URL { folder.appendingPathComponent("\(stamp.key).digests") }

    private func prune() {
        let keys: [URLResourceKey] = [.contentModificationDateKey]
        let all = (try? FileManager.default.contentsOfDirectory(at: folder, includingPropertiesForKeys: keys)) ?? []
        guard all.count >= Self.maximumFiles else { return }
        let dated = all.map {
            ($0, (try? $0.resourceValues(forKeys: Set(keys)))?.contentModificationDate ?? .distantPast)
        }
        for (file, _) in dated.sorted(by: { $0.1 < $1.1 }).prefix(all.count - Self.maximumFiles / 2) {
            try? FileManager.default.removeItem(at: file)
        }
    }

    // MARK: Who is at it

    /// Holds a lock until it is released or the process ends.
    final class Lock: Sendable {
        private let descriptor: Int32

        fileprivate init(descriptor: Int32) { self.descriptor = descriptor }

        deinit { close(descriptor) }
    }

    /// A lock named after `key`, shared by all who load or held by one who completes; nil when it cannot be had at once.
    func lock(_ key: String, isShared: Bool) -> Lock? {
        let descriptor = open(folder.appendingPathComponent("\(key).lock").path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { return nil }
        guard flock(descriptor, (isShared ? LOCK_SH : LOCK_EX) | LOCK_NB) == 0 else {
            close(descriptor)
            return nil
        }
        return Lock(descriptor: descriptor)
    }
}
