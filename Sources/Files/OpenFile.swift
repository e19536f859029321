import Glibc

/// A regular file that is open for reading. Links are followed, and everything that is asked about it is asked of the
/// open descriptor, so that a link, and a file that is replaced meanwhile, gives one answer.
public struct OpenFile: ~Copyable {
    /// The descriptor, which is closed with this value.
    public let descriptor: Int32
    /// Name without its folder.
    public let name: String
    /// Bytes.
    public let byteCount: Int

    /// Opens the file at `path`, which is not empty. Throws what it is when it is not a file that can be read.
    public init(_ path: String) throws(FileError) {
        // Without O_NONBLOCK a pipe would wait for somebody to write.
        let opened = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard opened >= 0 else { throw Self.refusal(path, errno) }
        var status = stat()
        let isKnown = fstat(opened, &status) == 0
        if let reason = isKnown ? Self.reason(status) : Self.text(errno) {
            close(opened)
            throw FileError(.otherKind, "\(Self.lastPart(path)) in \(Self.folder(path)) \(reason)")
        }
        (name, descriptor, byteCount) = (Self.lastPart(path), opened, Int(status.st_size))
    }

    /// Why a file of this status is not read, nil when it is.
    private static func reason(_ status: stat) -> String? {
        switch status.st_mode & S_IFMT {
        case S_IFDIR: "is a folder, not a file"
        case S_IFREG: status.st_size > 0 ? nil : "is empty (0 bytes): download or copy it again"
        default: "is not a regular file"
        }
    }

    deinit { close(descriptor) }

    /// Up to `count` bytes from byte `offset` on; fewer only at the end of the file.
    ///
    /// - Throws: `FileError` of the system, with the file.
    public func read(_ count: Int, at offset: Int = 0) throws(FileError) -> [UInt8] {
        let wanted = max(0, min(count, byteCount - offset))
        var failure: Int32 = 0
        let bytes = [UInt8](unsafeUninitializedCapacity: wanted) { buffer, done in
            while done < wanted, let base = buffer.baseAddress {
                let read = pread(descriptor, base + done, wanted - done, off_t(offset + done))
                if read < 0, errno == EINTR { continue }
                if read < 0 { failure = errno }
                guard read > 0 else { return }
                done += read
            }
        }
        guard failure == 0 else { throw FileError(.unreadable, "\(name) cannot be read: \(Self.text(failure))") }
        return bytes
    }

    /// The whole of a file of at most `limit` bytes. A pointer or a web page in its place is refused.
    ///
    /// - Throws: `FileError` that says what is there in place of such a file.
    public static func content(_ path: String, limit: Int) throws(FileError) -> [UInt8] {
        let file = try OpenFile(path)
        guard file.byteCount <= limit else {
            throw FileError(.tooLarge, "\(file.name) has \(file.byteCount) bytes, the limit is \(limit)")
        }
        let bytes = try file.read(file.byteCount)
        if let kind = FileKind(beginning: bytes) { throw FileError(.otherKind, "\(file.name) \(kind.sentence)") }
        return bytes
    }

    /// True when something of that name is there, also a link without a target.
    public static func isThere(_ path: String) -> Bool {
        var status = stat()
        return lstat(path, &status) == 0
    }

    // MARK: Sentences

    private static func refusal(_ path: String, _ code: Int32) -> FileError {
        let (name, folder) = (lastPart(path), folder(path))
        guard let target = target(path) else {
            return code == ENOENT || code == ENOTDIR
                ? FileError(.missing, "\(name) is missing in \(folder)")
                : FileError(.unreadable, "\(name) in \(folder) cannot be opened: \(text(code))")
        }
        switch code {
        case ENOENT, ENOTDIR:
            return FileError(
                .brokenLink,
                "\(name) in \(folder) is a link to \(target), and nothing is there. In a hub's cache the files lie in "
                    + "\"blobs\" beside \"snapshots\": mount or copy the whole models--… folder, not only the snapshot")
        case ELOOP: return FileError(.brokenLink, "\(name) in \(folder) is a link that leads back to itself")
        default:
            return FileError(
                .unreadable, "\(name) in \(folder), a link to \(target), cannot be opened: \(text(code))")
        }
    }

    /// What a link says, nil for what is no link.
    private static func target(_ path: String) -> String? {
        let bytes = withUnsafeTemporaryAllocation(of: CChar.self, capacity: Int(PATH_MAX)) { buffer in
            let count = buffer.baseAddress.map { readlink(path, $0, buffer.count) } ?? -1
            return buffer.prefix(max(0, count)).map { UInt8(bitPattern: $0) }
        }
        return bytes.isEmpty ? nil : String(decoding: bytes, as: UTF8.self)
    }

    private static func text(_ code: Int32) -> String { String(cString: strerror(code)) }

    private static func lastPart(_ path: String) -> String { path.split(separator: "/").last.map(String.init) ?? path }

    private static func folder(_ path: String) -> String {
        guard let slash = path.lastIndex(of: "/") else { return "." }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }
}
