/// The digest of a tensor from those of its blocks, so that one may be computed in pieces, by several readers, and
/// without reading what a sparse file does not hold.
///
/// A tensor's digest is that of its blocks' digests, one after the other as sixteen bytes each. All blocks but the last
/// have `byteCount` bytes; a tensor without bytes has no block.
public struct BlockDigests: Sendable {
    /// Bytes of a block.
    public static let byteCount = 1 << 20

    /// That of a whole block of zeros.
    public static let zeros = ContentDigest(of: [UInt8](repeating: 0, count: byteCount))

    private var digests: [UInt8] = []

    /// Of no blocks yet.
    public init() {}

    /// The next block.
    public mutating func append(_ block: UnsafeRawBufferPointer) { append(ContentDigest(of: block)) }

    /// The next block, by its digest.
    public mutating func append(_ digest: ContentDigest) { digests += digest.bytes }

    /// That of all blocks so far.
    public var digest: ContentDigest { ContentDigest(of: digests) }
}
