import ContentIdentity
import Glibc

/// What tells one state of a file from another without reading it: which file it is, its size, and when its contents
/// and its attributes last changed.
struct FileStamp: Sendable, Equatable {
    let device: UInt64
    let inode: UInt64
    let byteCount: Int
    /// Nanoseconds since 1970.
    let modified: Int64
    /// Nanoseconds since 1970. Whoever writes a file and puts its modification time back cannot put this one back.
    let changed: Int64

    /// Of an open file; nil when the system does not say.
    init?(descriptor: Int32) {
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { return nil }
        device = UInt64(status.st_dev)
        inode = UInt64(status.st_ino)
        byteCount = Int(status.st_size)
        modified = Self.nanoseconds(status.st_mtim)
        changed = Self.nanoseconds(status.st_ctim)
    }

    private static func nanoseconds(_ time: timespec) -> Int64 {
        Int64(time.tv_sec) &* 1_000_000_000 &+ Int64(time.tv_nsec)
    }

    /// A line that is equal for equal stamps only.
    var text: String { "\(device) \(inode) \(byteCount) \(modified) \(changed)" }

    /// A name for what is known of this state of the file.
    var key: String { ContentDigest(of: Array(text.utf8)).description }
}
