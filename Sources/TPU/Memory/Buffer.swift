/// Where a buffer lies.
public enum MemorySpace: String, Sendable {
    /// 64 MiB beside the vector and matrix units.
    case vector = "VMEM"
    /// 1 MiB beside the scalar unit.
    case scalar = "SMEM"
    /// The device's half of the chip's high-bandwidth memory.
    case highBandwidth = "HBM"

    /// Bytes a device has.
    public var capacity: Int {
        switch self {
        case .vector: 64 << 20
        case .scalar: 1 << 20
        case .highBandwidth: 96 << 30
        }
    }
}

/// What a buffer holds besides its shape.
public enum BufferContent: Sendable {
    /// Bytes when the slice runs with tensors, otherwise only a shape.
    case tensor
    /// Bytes always: routing metadata decides what a program does.
    case metadata
    /// Inputs a program reads and may not write: weights and tokens. Reading them needs no wait.
    case constant
}

/// A buffer that every device of the slice has at the same place: a handle, made by `Slice.buffer`.
///
/// A buffer is a table of rows. Races are found per *granule*: a run of rows, or a part of the columns of them, that is
/// filled and emptied together.
public struct Buffer: Sendable, Equatable {
    let index: Int
    /// Rows of the buffer.
    public let rowCount: Int
    /// Bytes of one row.
    public let rowBytes: Int
    /// Rows of one granule.
    public let granuleRows: Int
    /// Bytes of a row that belong to one granule.
    public let granuleBytes: Int
    /// Where it lies.
    public let space: MemorySpace

    /// Rows `first ..< first + count`, whole.
    public func rows(_ first: Int, _ count: Int) -> Region {
        Region(buffer: self, firstRow: first, rowCount: count, firstByte: 0, byteCount: rowBytes)
    }

    /// Bytes `bytes` of rows `first ..< first + count`: a tile of a wider matrix.
    public func rows(_ first: Int, _ count: Int, bytes: Range<Int>) -> Region {
        Region(buffer: self, firstRow: first, rowCount: count, firstByte: bytes.lowerBound, byteCount: bytes.count)
    }
}

/// A rectangle of a buffer: some rows, and of each the same bytes.
public struct Region: Sendable, Equatable {
    /// The buffer.
    public let buffer: Buffer
    /// First row.
    public let firstRow: Int
    /// Rows.
    public let rowCount: Int
    /// First byte of every row.
    public let firstByte: Int
    /// Bytes of every row.
    public let byteCount: Int

    /// Bytes of the rectangle.
    public var bytes: Int { rowCount * byteCount }

    var isInside: Bool {
        firstRow >= 0 && rowCount >= 0 && firstRow + rowCount <= buffer.rowCount && firstByte >= 0 && byteCount >= 0
            && firstByte + byteCount <= buffer.rowBytes
    }
}

/// A semaphore that every device of the slice has: a handle, made by `Slice.semaphore`. Copies add the bytes they moved,
/// waits take them away.
public struct Semaphore: Sendable, Equatable {
    let index: Int
}

/// Semaphores of one purpose, one per bank, slot or expert.
public struct SemaphoreArray: Sendable, Equatable {
    let first: Int
    /// How many there are.
    public let count: Int

    /// One of them; the index is trusted, as a program's own.
    public subscript(_ position: Int) -> Semaphore {
        precondition(position >= 0 && position < count, "semaphore \(position) of \(count)")
        return Semaphore(index: first + position)
    }
}

/// A named part of a program that its time is accounted to: a handle, made by `Slice.phase`.
public struct Phase: Sendable, Equatable {
    let index: Int
}
