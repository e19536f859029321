import ContentIdentity
import Dispatch
import Glibc
import Synchronization

/// Digests what a reader has read on a thread of its own, while the reader goes on: next to reading, which waits for
/// memory or a disk, that takes hardly any time. What is handed over is still in the cache that the cores share.
///
/// The thread looks for blocks rather than being woken, for waking a core that sleeps would cost the reader a good part
/// of what digesting a block costs. One reader's at a time. The memory of all blocks must stay until `digests()` has
/// returned.
final class DigestWorker: Sendable {
    private struct Block: Sendable {
        // Nobody writes to it while it is digested.
        nonisolated(unsafe) let bytes: UnsafeRawBufferPointer
    }

    private enum Piece {
        case block(Block)
        /// The tensor whose blocks came before.
        case end(String)
    }

    private struct State {
        var pieces: [Piece] = []
        var isComplete = false
        var digests: [String: ContentDigest] = [:]
    }

    /// Microseconds between two looks, as long as blocks come and when none has come for long.
    private static let pauses: ClosedRange<UInt32> = 50...2000

    private let state = Mutex(State())
    private let thread = DispatchQueue(label: "digests", qos: .userInitiated)

    /// A worker that looks for blocks from now on, until `digests()` is called, which it must be.
    init() { thread.async { self.run() } }

    /// Takes the next block of a tensor.
    func append(_ block: UnsafeRawBufferPointer) {
        let block = Block(bytes: block)
        state.withLock { $0.pieces.append(.block(block)) }
    }

    /// Takes the tensor whose blocks these were.
    func finish(_ name: String) { state.withLock { $0.pieces.append(.end(name)) } }

    /// Waits for all that was taken, and returns the digests of the tensors that were finished.
    func digests() -> [String: ContentDigest] {
        state.withLock { $0.isComplete = true }
        return thread.sync { state.withLock(\.digests) }
    }

    private func run() {
        var blocks = BlockDigests()
        var pause = Self.pauses.lowerBound
        while true {
            let (pieces, isComplete) = state.withLock { state in
                defer { state.pieces = [] }
                return (state.pieces, state.isComplete)
            }
            for piece in pieces {
                switch piece {
                case .block(let block): blocks.append(block.bytes)
                case .end(let name):
                    let digest = blocks.digest
                    blocks = BlockDigests()
                    state.withLock { $0.digests[name] = digest }
                }
            }
            guard pieces.isEmpty else {
                pause = Self.pauses.lowerBound
                continue
            }
            guard !isComplete else { return }
            usleep(pause)
            pause = min(2 * pause, Self.pauses.upperBound)
        }
    }
}
