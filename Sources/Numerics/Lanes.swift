import CSIMD

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
    let four = addLanes4Apart(addLanes8Apart(value, value), value)
    return addNeighbours(addLanes2Apart(four, four), four)[0]
}

/// The sums of four vectors at `pointer`, each by the halving of `horizontalSum` down to four lanes.
@inline(__always)
private func foldFour(_ pointer: UnsafeRawPointer) -> Lanes {
    func vector(_ index: Int) -> Lanes { pointer.load(fromByteOffset: 64 * index, as: Lanes.self) }
    return addLanes4Apart(addLanes8Apart(vector(0), vector(1)), addLanes8Apart(vector(2), vector(3)))
}

/// `horizontalSum` of the four vectors at `pointer`.
@inline(__always)
func horizontalSums4(_ pointer: UnsafeRawPointer) -> SIMD4<Float> {
    let four = foldFour(pointer)
    let one = addNeighbours(addLanes2Apart(four, four), four)
    return SIMD4(one[0], one[1], one[2], one[3])
}

/// `horizontalSum` of the sixteen vectors at `pointer`.
@inline(__always)
func horizontalSums16(_ pointer: UnsafeRawPointer) -> Lanes {
    addNeighbours(
        addLanes2Apart(foldFour(pointer), foldFour(pointer + 256)),
        addLanes2Apart(foldFour(pointer + 512), foldFour(pointer + 768)))
}
