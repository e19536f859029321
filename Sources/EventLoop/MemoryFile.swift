import CLibuv
import Glibc

/// A file that only its descriptor leads to: it is gone when the processes that have it are, however they end.
public final class MemoryFile: Sendable {
    /// The descriptor, closed at the end of this object and when another program is executed.
    public let descriptor: Int32

    /// A file with these bytes. `label` is what the system's listings call it.
    ///
    /// - Throws: `LoopError` when the system has no room for it.
    public init(_ label: String, _ bytes: [UInt8]) throws(LoopError) {
        descriptor = linux_memory_file(label)
        guard descriptor >= 0, write(descriptor, bytes, bytes.count) == bytes.count else {
            throw LoopError("a file in memory cannot be made: \(String(cString: strerror(errno)))")
        }
    }

    deinit { if descriptor >= 0 { close(descriptor) } }
}
