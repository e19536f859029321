/// Floats that live as long as their owner.
final class FloatScratch {
    let pointer: UnsafeMutablePointer<Float>

    init(_ count: Int) {
        pointer = .allocate(capacity: max(1, count))
        pointer.initialize(repeating: 0, count: max(1, count))
    }

    deinit { pointer.deallocate() }
}

/// Bytes that live as long as their owner.
final class ByteScratch {
    let pointer: UnsafeMutableRawPointer

    init(_ count: Int) {
        pointer = .allocate(byteCount: max(1, count), alignment: 64)
        pointer.initializeMemory(as: UInt8.self, repeating: 0, count: max(1, count))
    }

    deinit { pointer.deallocate() }
}
