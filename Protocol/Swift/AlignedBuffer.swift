/// Raw memory aligned to 64 bytes, freed with its last reference. Tensors lie in it as they lay on the wire.
public final class AlignedBuffer: Sendable {
    /// First byte. Whoever made the buffer fills it before anybody else has it; then it is only read.
    public nonisolated(unsafe) let pointer: UnsafeMutableRawPointer
    /// Bytes.
    public let count: Int

    /// `count` bytes, not initialised.
    public init(count: Int) {
        self.count = count
        pointer = .allocate(byteCount: max(1, count), alignment: 64)
    }

    /// A copy of `bytes`.
    public convenience init(copying bytes: UnsafeRawBufferPointer) {
        self.init(count: bytes.count)
        UnsafeMutableRawBufferPointer(start: pointer, count: count).copyMemory(from: bytes)
    }

    deinit { pointer.deallocate() }

    /// The bytes.
    public var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: pointer, count: count) }

    /// Elements [count] of `type` from byte `offset`, or nil when they do not lie inside.
    public func elements<Element: BitwiseCopyable>(
        _ type: Element.Type, at offset: Int, count: Int
    ) -> UnsafeMutablePointer<Element>? {
        let (size, overflow) = count.multipliedReportingOverflow(by: MemoryLayout<Element>.stride)
        guard !overflow, count >= 0, offset >= 0, offset % MemoryLayout<Element>.alignment == 0,
            offset <= self.count, size <= self.count - offset
        else { return nil }
        return (pointer + offset).bindMemory(to: Element.self, capacity: count)
    }
}
