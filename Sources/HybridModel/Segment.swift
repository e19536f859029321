/// Tokens of one request that are computed in one step, and where its state lies.
public struct Segment: Sendable {
    /// Recurrent slot.
    public let slot: Int
    /// Latent pages in token order, enough for `position + tokens.count` tokens.
    public let pages: [Int]
    /// Absolute position of the first token.
    public let position: Int
    /// The tokens.
    public let tokens: [UInt32]

    /// A segment.
    public init(slot: Int, pages: [Int], position: Int, tokens: [UInt32]) {
        self.slot = slot
        self.pages = pages
        self.position = position
        self.tokens = tokens
    }
}

/// What a layer keeps of a request.
public enum LayerPlace: Sendable, Equatable {
    /// A recurrent state, the `index`-th of the linear layers.
    case linear(Int)
    /// Latents per token, the `index`-th of the MLA layers.
    case latent(Int)
}

/// The rows of a step that go through the experts of one MoE layer. Pointers are valid until the next layer.
public struct RoutedRows {
    /// Rows.
    public let rowCount: Int
    /// Normed hidden rows [rowCount, h].
    public let rows: UnsafePointer<Float>
    /// Chosen experts [rowCount, K], by falling biased score, ties to the lower id. This is the order of combination.
    public let expertIDs: UnsafePointer<Int32>
    /// Routing weights [rowCount, K] in the same order.
    public let weights: UnsafePointer<Float>
    /// Router logits [rowCount, E], for tests and load statistics.
    public let logits: UnsafePointer<Float>
}

/// Which routed experts one of `count` processes owns: contiguous, sizes differing by at most one.
public struct ExpertShard: Sendable, Equatable {
    /// 0 ..< count.
    public let index: Int
    /// Processes that share the experts.
    public let count: Int

    /// Shard `index` of `count`.
    public init(index: Int, count: Int) {
        self.index = index
        self.count = count
    }

    /// The experts of this shard.
    public func range(expertCount: Int) -> Range<Int> {
        (index * expertCount / count)..<((index + 1) * expertCount / count)
    }
}

/// A zeroed buffer of floats, owned.
final class FloatBuffer: Sendable {
    // One step at a time writes it, its threads to places of their own.
    nonisolated(unsafe) let pointer: UnsafeMutablePointer<Float>
    let count: Int

    var byteCount: Int { 4 * count }

    init(_ count: Int) {
        self.count = max(1, count)
        pointer = .allocate(capacity: self.count)
        pointer.initialize(repeating: 0, count: self.count)
    }

    deinit { pointer.deallocate() }
}
