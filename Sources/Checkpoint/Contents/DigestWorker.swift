import ContentIdentity
import Dispatch

/// Digests what a reader has read on a thread of its own, while the reader goes on: next to reading, which waits for
/// memory or a disk, that takes hardly any time. What is handed over is still in the cache that the cores share.
///
/// One reader's at a time. The memory of all blocks must stay until `digests()` has returned.
final class DigestWorker: @unchecked Sendable {
    private enum Piece: @unchecked Sendable {
        case block(UnsafeRawBufferPointer)
        /// The tensor whose blocks came before.
        case end(String)
    }

    /// Bytes that are handed over at once: waking a thread costs the reader microseconds.
    private static let batchByteCount = 2 << 20

    private let queue = DispatchQueue(label: "digests", qos: .userInitiated)
    // These belong to the reader.
    private var batch: [Piece] = []
    private var byteCount = 0
    // These belong to the queue.
    private var blocks = BlockDigests()
    private var finished: [String: ContentDigest] = [:]

    /// Takes the next block of a tensor.
    func append(_ block: UnsafeRawBufferPointer) {
        batch.append(.block(block))
        byteCount += block.count
        if byteCount >= Self.batchByteCount { handOver() }
    }

    /// Takes the tensor whose blocks these were.
    func finish(_ name: String) { batch.append(.end(name)) }

    /// Waits for all that was taken, and returns the digests of the tensors that were finished.
    func digests() -> [String: ContentDigest] {
        handOver()
        return queue.sync { finished }
    }

    private func handOver() {
        guard !batch.isEmpty else { return }
        queue.async { [batch] in
            for piece in batch { self.take(piece) }
        }
        (batch, byteCount) = ([], 0)
    }

    private func take(_ piece: Piece) {
        switch piece {
        case .block(let bytes): blocks.append(bytes)
        case .end(let name):
            finished[name] = blocks.digest
            blocks = BlockDigests()
        }
    }
}
