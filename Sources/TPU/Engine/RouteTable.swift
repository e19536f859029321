/// Routes between all chips, and the links between the two devices of a chip.
struct RouteTable {
    private let chipCount: Int
    private let starts: [Int]
    private let flat: [Int]
    private let firstDieLink: Int
    let linkCount: Int

    init(_ topology: SliceTopology) {
        chipCount = topology.chipCount
        firstDieLink = topology.linkCount
        linkCount = topology.linkCount + topology.deviceCount
        var starts: [Int] = []
        var flat: [Int] = []
        for source in 0..<topology.chipCount {
            for target in 0..<topology.chipCount {
                starts.append(flat.count)
                flat += topology.route(fromChip: source, toChip: target)
            }
        }
        starts.append(flat.count)
        // One entry per device for the way to its neighbour on the chip.
        for device in 0..<topology.deviceCount { flat.append(topology.linkCount + device) }
        (self.starts, self.flat) = (starts, flat)
    }

    /// The first position of a route.
    @inline(__always)
    func start(_ source: Int, _ target: Int) -> Int {
        source >> 1 == target >> 1
            ? starts[chipCount * chipCount] + source : starts[(source >> 1) * chipCount + target >> 1]
    }

    /// The positions of a route between two different devices.
    @inline(__always)
    func route(from source: Int, to target: Int) -> Range<Int> {
        let first = start(source, target)
        if source >> 1 == target >> 1 { return first..<(first + 1) }
        return first..<starts[(source >> 1) * chipCount + target >> 1 + 1]
    }

    @inline(__always)
    func link(_ position: Int) -> Int { flat[position] }

    @inline(__always)
    func isDieLink(_ link: Int) -> Bool { link >= firstDieLink }
}
