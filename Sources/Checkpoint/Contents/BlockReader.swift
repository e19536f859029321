import ContentIdentity
import Glibc

/// Reads ranges of a file block by block and digests them. Blocks that a sparse file does not hold are zeros and are not
/// read.
struct BlockReader: ~Copyable {
    /// SEEK_DATA of lseek(2), which the C library shows to GNU sources only.
    private static let seekData: Int32 = 3
    private let descriptor: Int32
    private let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: BlockDigests.byteCount, alignment: 4096)
    /// Bytes that were read.
    private(set) var bytesRead = 0

    /// A reader of an open file, which must stay open.
    init(descriptor: Int32) { self.descriptor = descriptor }

    deinit { buffer.deallocate() }

    /// The digest of `byteCount` bytes from `offset` on; nil when they cannot be read. Calls `advance` with the bytes of
    /// each block.
    mutating func digest(offset: Int, byteCount: Int, advance: (Int) -> Void) -> ContentDigest? {
        var blocks = BlockDigests()
        var done = 0
        while done < byteCount {
            let count = min(BlockDigests.byteCount, byteCount - done)
            if isHole(offset + done, count) {
                if count == BlockDigests.byteCount {
                    blocks.append(BlockDigests.zeros)
                } else {
                    blocks.append(ContentDigest(of: [UInt8](repeating: 0, count: count)))
                }
            } else {
                let block = UnsafeMutableRawBufferPointer(rebasing: buffer[..<count])
                guard Self.read(descriptor, offset: offset + done, into: block) == count else { return nil }
                bytesRead += count
                blocks.append(UnsafeRawBufferPointer(block))
            }
            done += count
            advance(count)
        }
        return blocks.digest
    }

    /// True when the file holds nothing in these bytes, which then read as zeros. Not every file system says so.
    private func isHole(_ offset: Int, _ count: Int) -> Bool {
        let data = lseek(descriptor, off_t(offset), Self.seekData)
        return data < 0 ? errno == ENXIO : Int(data) >= offset + count
    }

    /// Reads as many bytes as `block` has, or fewer where the file ends or fails; returns how many.
    static func read(_ descriptor: Int32, offset: Int, into block: UnsafeMutableRawBufferPointer) -> Int {
        var done = 0
        while done < block.count {
            let count = pread(descriptor, block.baseAddress.map { $0 + done }, block.count - done, off_t(offset + done))
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { return done }
            done += count
        }
        return done
    }
}
