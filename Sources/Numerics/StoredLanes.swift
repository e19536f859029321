import CSIMD

/// How 64 bytes of a stored matrix become lanes: `partCount` vectors that are added to a dot product one after the
/// other. Neighbouring elements lie in one 32-bit word, so a part takes one element of every word: a shift or a mask
/// instead of a shuffle. Whatever such a matrix is multiplied with is packed into the same order first.
protocol StoredLanes {
    /// Vectors in 64 bytes.
    static var partCount: Int { get }
    /// The element within the 64 bytes that lane `lane` of part `part` stands for.
    static func element(_ part: Int, _ lane: Int) -> Int
    /// Part `part` of the 64 bytes at `pointer`, times `1 / packedFactor · 1 / resultFactor`.
    static func lanes(_ pointer: UnsafeRawPointer, _ part: Int) -> Lanes
    /// What the other side is multiplied with when it is packed.
    static var packedFactor: Float { get }
    /// What a dot product is multiplied with at the end.
    static var resultFactor: Float { get }
    /// One element, exactly.
    static func one(_ pointer: UnsafeRawPointer) -> Float
}

extension StoredLanes {
    @inline(__always) static var packedFactor: Float { 1 }
    @inline(__always) static var resultFactor: Float { 1 }
    /// Elements in 64 bytes.
    @inline(__always) static var blockCount: Int { laneCount * partCount }
    /// Bytes of one element.
    @inline(__always) static var byteCount: Int { 4 / partCount }
}

enum Float32Lanes: StoredLanes {
    @inline(__always) static var partCount: Int { 1 }
    @inline(__always) static func element(_ part: Int, _ lane: Int) -> Int { lane }
    @inline(__always) static func lanes(_ pointer: UnsafeRawPointer, _ part: Int) -> Lanes {
        pointer.loadUnaligned(as: Lanes.self)
    }
    @inline(__always) static func one(_ pointer: UnsafeRawPointer) -> Float { pointer.loadUnaligned(as: Float.self) }
}

enum BFloat16Lanes: StoredLanes {
    @inline(__always) static var partCount: Int { 2 }
    @inline(__always) static func element(_ part: Int, _ lane: Int) -> Int { 2 * lane + part }
    @inline(__always) static func lanes(_ pointer: UnsafeRawPointer, _ part: Int) -> Lanes {
        lanes(pointer.loadUnaligned(as: SIMD16<UInt32>.self), part)
    }
    @inline(__always) static func lanes(_ words: SIMD16<UInt32>, _ part: Int) -> Lanes {
        unsafeBitCast(part == 0 ? words &<< 16 : words & 0xFFFF_0000, to: Lanes.self)
    }
    @inline(__always) static func one(_ pointer: UnsafeRawPointer) -> Float {
        BFloat16(bitPattern: pointer.loadUnaligned(as: UInt16.self)).float
    }
}

/// E4M3 read as bf16 with an exponent that is 120 too small: the sign and the seven other bits only have to move, and
/// subnormals need no case of their own. The factors make up for the exponent and keep products away from underflow.
/// There is no case for NaN: checkpoints that hold one are refused when they are loaded.
enum Float8E4M3Lanes: StoredLanes {
    @inline(__always) static var partCount: Int { 4 }
    @inline(__always) static var packedFactor: Float { 0x1p80 }
    @inline(__always) static var resultFactor: Float { 0x1p40 }
    /// Parts 0 and 1 are the even bytes, 2 and 3 the odd ones, in the order of `BFloat16Lanes`.
    @inline(__always) static func element(_ part: Int, _ lane: Int) -> Int {
        4 * lane + 2 * (part & 1) + part / 2
    }
    /// The even (0) or odd (1) bytes of 64 as 32 values of bf16.
    @inline(__always) static func widened(_ pointer: UnsafeRawPointer, _ half: Int) -> SIMD16<UInt32> {
        let words = pointer.loadUnaligned(as: SIMD16<UInt32>.self)
        return half == 0 ? widenEvenBytes(words) : widenOddBytes(words)
    }
    @inline(__always) static func lanes(_ pointer: UnsafeRawPointer, _ part: Int) -> Lanes {
        BFloat16Lanes.lanes(widened(pointer, part / 2), part & 1)
    }
    @inline(__always) static func one(_ pointer: UnsafeRawPointer) -> Float {
        Float8E4M3(bitPattern: pointer.load(as: UInt8.self)).float
    }
}

extension ElementType {
    /// Elements in 64 bytes.
    var blockCount: Int { 64 / byteCount }
}
