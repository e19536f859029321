/// Sixteen fp32 values computed side by side. Every reduction in the kernels runs over these lanes in one fixed order,
/// whatever the vector width of the machine, so that a result does not depend on tiling or threads.
typealias Lanes = SIMD16<Float>

/// Values in one `Lanes`.
let laneCount = 16

@inline(__always)
func load(_ pointer: UnsafePointer<Float>) -> Lanes {
    UnsafeRawPointer(pointer).loadUnaligned(as: Lanes.self)
}

@inline(__always)
func store(_ value: Lanes, _ pointer: UnsafeMutablePointer<Float>) {
    UnsafeMutableRawPointer(pointer).storeBytes(of: value, as: Lanes.self)
}

/// The first `count` (< 16) values, the other lanes zero.
@inline(__always)
func loadPartial(_ pointer: UnsafePointer<Float>, _ count: Int) -> Lanes {
    var lanes = Lanes()
    for lane in 0..<count { lanes[lane] = pointer[lane] }
    return lanes
}

@inline(__always)
func storePartial(_ value: Lanes, _ pointer: UnsafeMutablePointer<Float>, _ count: Int) {
    for lane in 0..<count { pointer[lane] = value[lane] }
}

/// The sum of the lanes by halving: 16, 8, 4, 2, 1.
@inline(__always)
func horizontalSum(_ value: Lanes) -> Float {
    let eight = value.lowHalf + value.highHalf
    let four = eight.lowHalf + eight.highHalf
    let two = four.lowHalf + four.highHalf
    return two[0] + two[1]
}

/// How sixteen neighbouring elements of a stored matrix become lanes.
protocol StoredLanes {
    static var byteCount: Int { get }
    static func load(_ pointer: UnsafeRawPointer) -> Lanes
    static func loadOne(_ pointer: UnsafeRawPointer) -> Float
}

enum Float32Lanes: StoredLanes {
    static var byteCount: Int { 4 }
    @inline(__always) static func load(_ pointer: UnsafeRawPointer) -> Lanes { pointer.loadUnaligned(as: Lanes.self) }
    @inline(__always) static func loadOne(_ pointer: UnsafeRawPointer) -> Float {
        pointer.loadUnaligned(as: Float.self)
    }
}

enum BFloat16Lanes: StoredLanes {
    static var byteCount: Int { 2 }
    @inline(__always) static func load(_ pointer: UnsafeRawPointer) -> Lanes {
        let halves = pointer.loadUnaligned(as: SIMD16<UInt16>.self)
        return unsafeBitCast(SIMD16<UInt32>(truncatingIfNeeded: halves) &<< 16, to: Lanes.self)
    }
    @inline(__always) static func loadOne(_ pointer: UnsafeRawPointer) -> Float {
        BFloat16(bitPattern: pointer.loadUnaligned(as: UInt16.self)).float
    }
}

enum Float8E4M3Lanes: StoredLanes {
    static var byteCount: Int { 1 }
    @inline(__always) static func load(_ pointer: UnsafeRawPointer) -> Lanes {
        let wide = SIMD16<UInt32>(truncatingIfNeeded: pointer.loadUnaligned(as: SIMD16<UInt8>.self))
        let magnitude = wide & 0x7F
        let bits = ((wide & 0x80) &<< 24) | (magnitude &<< 20)
        let value = unsafeBitCast(bits, to: Lanes.self) * Lanes(repeating: 0x1p120)
        return value.replacing(with: .nan, where: magnitude .== 0x7F)
    }
    @inline(__always) static func loadOne(_ pointer: UnsafeRawPointer) -> Float {
        Float8E4M3(bitPattern: pointer.load(as: UInt8.self)).float
    }
}

@inline(__always)
func loadPartial<Stored: StoredLanes>(_: Stored.Type, _ pointer: UnsafeRawPointer, _ count: Int) -> Lanes {
    var lanes = Lanes()
    for lane in 0..<count { lanes[lane] = Stored.loadOne(pointer + lane * Stored.byteCount) }
    return lanes
}
