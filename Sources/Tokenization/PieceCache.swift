/// Remembers the ids of short pieces. Direct-mapped: a piece has one place and takes it from whoever had it, so the
/// memory is bounded and no input can make a lookup slow.
struct PieceCache {
    private struct Entry {
        var piece: [UInt8] = []
        var ids: [UInt32] = []
    }

    /// Longer pieces are not kept.
    static let maximumPieceBytes = 32
    private static let placeCount = 8192
    private var entries = [Entry](repeating: Entry(), count: placeCount)

    /// Appends the ids of the piece if they are known.
    func append(_ piece: UnsafeBufferPointer<UInt8>, into out: inout [UInt32]) -> Bool {
        guard piece.count <= Self.maximumPieceBytes, !piece.isEmpty else { return false }
        let place = Self.place(piece)
        guard entries[place].piece.elementsEqual(piece) else { return false }
        out.append(contentsOf: entries[place].ids)
        return true
    }

    /// Keeps the ids of the piece.
    mutating func keep(_ piece: UnsafeBufferPointer<UInt8>, _ ids: ArraySlice<UInt32>) {
        guard piece.count <= Self.maximumPieceBytes, !piece.isEmpty else { return }
        entries[Self.place(piece)] = Entry(piece: Array(piece), ids: Array(ids))
    }

    private static func place(_ piece: UnsafeBufferPointer<UInt8>) -> Int {
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        for byte in piece { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
        return Int(truncatingIfNeeded: (hash ^ hash >> 29) & UInt64(placeCount - 1))
    }
}
