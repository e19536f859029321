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
    // Narrow: copies carry two of these, and there are many copies under way.
    private let narrowIndex, narrowRows, narrowRowBytes, narrowGranuleRows, narrowGranuleBytes: Int32
    /// Where it lies.
    public let space: MemorySpace

    init(index: Int, rowCount: Int, rowBytes: Int, granuleRows: Int, granuleBytes: Int, space: MemorySpace) {
        narrowIndex = Int32(index)
        narrowRows = Int32(rowCount)
        narrowRowBytes = Int32(rowBytes)
        narrowGranuleRows = Int32(granuleRows)
        narrowGranuleBytes = Int32(granuleBytes)
        self.space = space
    }

    var index: Int { Int(narrowIndex) }
    /// Rows of the buffer.
    public var rowCount: Int { Int(narrowRows) }
    /// Bytes of one row.
    public var rowBytes: Int { Int(narrowRowBytes) }
    /// Rows of one granule.
    public var granuleRows: Int { Int(narrowGranuleRows) }
    /// Bytes of a row that belong to one granule.
    public var granuleBytes: Int { Int(narrowGranuleBytes) }

    /// Rows `first ..< first + count`, whole.
    public func rows(_ first: Int, _ count: Int) -> Region {
        Region(buffer: self, rows: first, count, bytes: 0, rowBytes)
    }

    /// Bytes `bytes` of rows `first ..< first + count`: a tile of a wider matrix.
    public func rows(_ first: Int, _ count: Int, bytes: Range<Int>) -> Region {
        Region(buffer: self, rows: first, count, bytes: bytes.lowerBound, bytes.count)
    }
}

/// A rectangle of a buffer: some rows, and of each the same bytes.
public struct Region: Sendable, Equatable {
    /// The buffer.
    public let buffer: Buffer
    private let narrowFirstRow, narrowRows, narrowFirstByte, narrowBytes: Int32

    /// Numbers that no buffer can have become -1, which no check lets through.
    init(buffer: Buffer, rows first: Int, _ count: Int, bytes firstByte: Int, _ byteCount: Int) {
        self.buffer = buffer
        narrowFirstRow = Int32(exactly: first) ?? -1
        narrowRows = Int32(exactly: count) ?? -1
        narrowFirstByte = Int32(exactly: firstByte) ?? -1
        narrowBytes = Int32(exactly: byteCount) ?? -1
    }

    /// First row.
    public var firstRow: Int { Int(narrowFirstRow) }
    /// Rows.
    public var rowCount: Int { Int(narrowRows) }
    /// First byte of every row.
    public var firstByte: Int { Int(narrowFirstByte) }
    /// Bytes of every row.
    public var byteCount: Int { Int(narrowBytes) }

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
