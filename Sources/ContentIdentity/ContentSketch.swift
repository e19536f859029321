import CXXHash

/// A few numbers from which two holders of many named contents learn which of them differ, without telling each other
/// all their digests.
///
/// Every name belongs to one bucket of each row, and a bucket is the exclusive or of its entries. Where the same names
/// have the same contents, all buckets agree; a name whose contents differ changes its bucket of every row. While few
/// differ, hardly any other name has only buckets that differ.
public struct ContentSketch: Sendable, Equatable {
    /// Buckets every name is in, one of each row.
    public static let rows = 3
    /// Buckets of a row.
    public static let buckets = 256
    /// Bytes of all buckets, four each.
    public static let byteCount = 4 * rows * buckets

    private var sums = [UInt32](repeating: 0, count: rows * buckets)

    /// Of nothing.
    public init() {}

    /// Reads buckets of four bytes each, the low byte first, row by row; nil for another number of bytes.
    public init?(bytes: [UInt8]) {
        guard bytes.count == Self.byteCount else { return nil }
        sums = (0..<Self.rows * Self.buckets).map { index in
            bytes[4 * index..<4 * index + 4].reversed().reduce(0) { $0 << 8 | UInt32($1) }
        }
    }

    /// What `init(bytes:)` reads.
    public var bytes: [UInt8] {
        sums.flatMap { sum in stride(from: 0, through: 24, by: 8).map { UInt8(truncatingIfNeeded: sum >> $0) } }
    }

    /// Adds an entry: the low 32 bits of `entry`, in the bucket of each row r that byte r of the name's 64-bit XXH3 says.
    mutating func add(_ name: String, _ entry: ContentDigest) {
        for index in Self.places(of: name) { sums[index] ^= UInt32(truncatingIfNeeded: entry.low) }
    }

    /// True when `name` can be among what differs: none of its buckets agree.
    func mayDiffer(_ name: String, from other: ContentSketch) -> Bool {
        Self.places(of: name).allSatisfy { sums[$0] != other.sums[$0] }
    }

    private static func places(of name: String) -> [Int] {
        let hash = Array(name.utf8).withUnsafeBytes { xxh3_64($0.baseAddress, $0.count) }
        return (0..<rows).map { row in row * buckets + Int(hash >> UInt64(8 * row) & 0xFF) }
    }
}
