/// What the device knows about a granule: copies under way that nobody waited for, and the owner's last access.
struct Granule {
    /// Copies that write it and were not waited for.
    var writes: UInt16
    /// Copies that read it and were not waited for.
    var reads: UInt16
    /// The owner's step at its last access.
    var lastAccess: UInt32
}

/// What a slice knows about a buffer.
struct BufferDescription {
    let name: String
    let handle: Buffer
    let content: BufferContent
    var granuleCount: Int { handle.granuleCount }
}

/// The granules that a region touches: `rows` runs of `perRow`, `stride` apart.
struct GranuleSet {
    var first: Int32
    var perRow: Int32
    var rows: Int32
    var stride: Int32
}

extension Buffer {
    var granuleColumns: Int { (rowBytes + granuleBytes - 1) / granuleBytes }

    var granuleCount: Int { (rowCount + granuleRows - 1) / granuleRows * granuleColumns }
}

extension Region {
    /// The granules it touches.
    @inline(__always)
    var granules: GranuleSet {
        guard rowCount > 0, byteCount > 0 else { return GranuleSet(first: 0, perRow: 0, rows: 0, stride: 0) }
        if buffer.granuleRows == 1, buffer.granuleBytes == buffer.rowBytes {
            return GranuleSet(
                first: Int32(truncatingIfNeeded: firstRow), perRow: Int32(truncatingIfNeeded: rowCount), rows: 1,
                stride: 0)
        }
        let columns = buffer.granuleColumns
        let rows = firstRow / buffer.granuleRows...(firstRow + rowCount - 1) / buffer.granuleRows
        let parts = firstByte / buffer.granuleBytes...(firstByte + byteCount - 1) / buffer.granuleBytes
        return GranuleSet(
            first: Int32(truncatingIfNeeded: rows.lowerBound * columns + parts.lowerBound),
            perRow: Int32(truncatingIfNeeded: parts.count), rows: Int32(truncatingIfNeeded: rows.count),
            stride: Int32(truncatingIfNeeded: columns))
    }
}

/// The bytes and granules of every buffer on every device. Pages that nobody touches take no memory.
final class DeviceMemory {
    struct Cell {
        var bytes: UnsafeMutableRawPointer?
        var granules: UnsafeMutablePointer<Granule>?
        var isOwned: Bool
    }

    let buffers: [BufferDescription]
    let deviceCount: Int
    private let cells: UnsafeMutablePointer<Cell>
    private let cellCount: Int

    init(buffers: [BufferDescription], deviceCount: Int, storesTensors: Bool) {
        self.buffers = buffers
        self.deviceCount = deviceCount
        cellCount = buffers.count * deviceCount
        cells = .allocate(capacity: max(1, cellCount))
        for device in 0..<deviceCount {
            for buffer in buffers {
                let stores = buffer.content == .metadata || (buffer.content == .tensor && storesTensors)
                let isTracked = buffer.content != .constant
                let bytes = stores ? zeroedPages(buffer.handle.rowCount * buffer.handle.rowBytes) : nil
                let granules =
                    isTracked ? zeroedPages(buffer.granuleCount * MemoryLayout<Granule>.stride) : nil
                (cells + device * buffers.count + buffer.handle.index).initialize(
                    to: Cell(
                        bytes: bytes, granules: granules?.assumingMemoryBound(to: Granule.self), isOwned: bytes != nil))
            }
        }
    }

    deinit {
        for cell in 0..<cellCount {
            if cells[cell].isOwned { releasePages(cells[cell].bytes) }
            releasePages(cells[cell].granules)
        }
        cells.deallocate()
    }

    /// Makes a constant buffer of a device be bytes of the caller, which outlive the run.
    func bind(_ buffer: Buffer, device: Int, to bytes: UnsafeRawPointer) {
        cells[device * buffers.count + buffer.index].bytes = UnsafeMutableRawPointer(mutating: bytes)
    }

    @inline(__always)
    func bytes(_ buffer: Buffer, device: Int) -> UnsafeMutableRawPointer? {
        cells[device * buffers.count + buffer.index].bytes
    }

    @inline(__always)
    func granules(_ buffer: Buffer, device: Int) -> UnsafeMutablePointer<Granule>? {
        granules(buffer.index, device: device)
    }

    /// The granules of the buffer with this index.
    @inline(__always)
    func granules(_ buffer: Int, device: Int) -> UnsafeMutablePointer<Granule>? {
        cells[device * buffers.count + buffer].granules
    }

    /// Moves the bytes of a copy; nothing happens where one side is only a shape.
    func move(_ source: Region, _ sourceDevice: Int, _ target: Region, _ targetDevice: Int) {
        guard let from = bytes(source.buffer, device: sourceDevice),
            let to = bytes(target.buffer, device: targetDevice)
        else { return }
        let input = from + source.firstRow * source.buffer.rowBytes + source.firstByte
        let output = to + target.firstRow * target.buffer.rowBytes + target.firstByte
        let isDense =
            source.byteCount == source.buffer.rowBytes && target.byteCount == target.buffer.rowBytes
            && source.byteCount == target.byteCount
        if isDense || (source.rowCount == 1 && target.rowCount == 1) {
            output.copyMemory(from: input, byteCount: source.bytes)
            return
        }
        for row in 0..<source.rowCount {
            (output + row * target.buffer.rowBytes).copyMemory(
                from: input + row * source.buffer.rowBytes, byteCount: source.byteCount)
        }
    }
}
