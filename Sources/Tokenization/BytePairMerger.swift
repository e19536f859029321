/// Puts the bytes of a piece together by the merges: always the pair of lowest rank, the leftmost of equals. A linked
/// list and a heap keep a piece of n bytes at O(n log n).
struct BytePairMerger {
    private var ids: [UInt32] = []
    private var previous: [Int32] = []
    private var next: [Int32] = []
    /// Rank in the upper half, place in the lower: the smallest is the next merge to try.
    private var heap: [UInt64] = []

    /// Appends the ids of the piece.
    mutating func encode(
        _ piece: UnsafeBufferPointer<UInt8>, byteIDs: [UInt32], merges: WordTable, into out: inout [UInt32]
    ) {
        load(piece, byteIDs)
        for place in 0..<max(0, ids.count - 1) { offer(place, merges) }
        while let entry = popHeap() {
            let place = Int(entry & 0xFFFF_FFFF)
            let right = Int(next[place])
            guard right >= 0 else { continue }
            guard let merge = merges[UInt64(ids[place]) << 32 | UInt64(ids[right])], merge >> 32 == entry >> 32 else {
                continue
            }
            ids[place] = UInt32(truncatingIfNeeded: merge)
            next[place] = next[right]
            if next[right] >= 0 { previous[Int(next[right])] = Int32(place) }
            next[right] = Self.gone
            if previous[place] >= 0 { offer(Int(previous[place]), merges) }
            offer(place, merges)
        }
        var place: Int32 = ids.isEmpty ? Self.end : 0
        while place >= 0 {
            out.append(ids[Int(place)])
            place = next[Int(place)]
        }
    }

    private static let end: Int32 = -1
    private static let gone: Int32 = -2

    private mutating func load(_ piece: UnsafeBufferPointer<UInt8>, _ byteIDs: [UInt32]) {
        ids.removeAll(keepingCapacity: true)
        previous.removeAll(keepingCapacity: true)
        next.removeAll(keepingCapacity: true)
        heap.removeAll(keepingCapacity: true)
        for (place, byte) in piece.enumerated() {
            ids.append(byteIDs[Int(byte)])
            previous.append(Int32(place) - 1)
            next.append(place + 1 < piece.count ? Int32(place) + 1 : Self.end)
        }
    }

    private mutating func offer(_ place: Int, _ merges: WordTable) {
        let right = next[place]
        guard right >= 0, let merge = merges[UInt64(ids[place]) << 32 | UInt64(ids[Int(right)])] else { return }
        heap.append(merge & ~0xFFFF_FFFF | UInt64(place))
        var child = heap.count - 1
        while child > 0, case let parent = (child - 1) / 2, heap[child] < heap[parent] {
            heap.swapAt(child, parent)
            child = parent
        }
    }

    private mutating func popHeap() -> UInt64? {
        guard let top = heap.first, let last = heap.popLast() else { return nil }
        guard !heap.isEmpty else { return top }
        heap[0] = last
        var parent = 0
        while true {
            var smallest = parent
            for child in (2 * parent + 1)..<(2 * parent + 3) where child < heap.count && heap[child] < heap[smallest] {
                smallest = child
            }
            guard smallest != parent else { return top }
            heap.swapAt(parent, smallest)
            parent = smallest
        }
    }
}
