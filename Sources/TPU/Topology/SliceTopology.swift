/// How the chips of a v7x slice are wired: a 3D grid of chips with one link per neighbour and direction, two devices
/// on every chip (docs/kernels.md#the-device).
public struct SliceTopology: Sendable, Equatable {
    /// Name as the command line takes it.
    public let name: String
    /// Chips along each axis.
    public let x, y, z: Int
    /// True when axes of four or more chips close to a ring.
    public let wraps: Bool

    private static let known: [(name: String, x: Int, y: Int, z: Int, wraps: Bool)] = [
        ("v7x-4", 2, 2, 1, false), ("v7x-8", 2, 2, 2, false), ("v7x-16", 2, 2, 4, false), ("v7x-64", 4, 4, 4, true),
    ]

    /// The slices that exist, by name.
    public static let names = known.map(\.name)

    /// A slice by name. Only full cubes of four chips are wired as a torus; `wraps` overrides that.
    ///
    /// - Throws: `DeviceError` with code `.topology`.
    public init(named name: String, wraps: Bool? = nil) throws(DeviceError) {
        guard let found = Self.known.first(where: { $0.name == name }) else {
            throw DeviceError(
                .topology, "there is no slice \"\(name)\"; known are \(Self.names.joined(separator: ", "))")
        }
        (self.name, x, y, z) = (name, found.x, found.y, found.z)
        self.wraps = wraps ?? found.wraps
    }

    /// Chips of the slice.
    public var chipCount: Int { x * y * z }
    /// Devices of the slice: two per chip.
    public var deviceCount: Int { 2 * chipCount }
    /// Directed links: six per chip, whether or not the grid has a neighbour there.
    public var linkCount: Int { 6 * chipCount }

    /// The directed links from chip to chip, dimension by dimension: x, then y, then z.
    ///
    /// Link `6·chip + 2·axis` leaves the chip upwards along the axis, the next one downwards.
    public func route(fromChip source: Int, toChip destination: Int) -> [Int] {
        let sizes = [x, y, z]
        var position = coordinates(source)
        let target = coordinates(destination)
        var links: [Int] = []
        for axis in 0..<3 {
            let isUpwards = isUpwards(from: position[axis], to: target[axis], size: sizes[axis])
            while position[axis] != target[axis] {
                links.append(6 * chip(position) + 2 * axis + (isUpwards ? 0 : 1))
                position[axis] = (position[axis] + (isUpwards ? 1 : sizes[axis] - 1)) % sizes[axis]
            }
        }
        return links
    }

    /// A readable name of a directed link.
    public func linkName(_ link: Int) -> String {
        let place = coordinates(link / 6)
        return "(\(place[0]),\(place[1]),\(place[2])) \(["+x", "-x", "+y", "-y", "+z", "-z"][link % 6])"
    }

    /// The shorter way round where there is a ring; the two halves of a ring are taken alternately so that both carry
    /// the same load.
    private func isUpwards(from position: Int, to target: Int, size: Int) -> Bool {
        guard wraps, size >= 4 else { return target > position }
        let up = (target - position + size) % size
        return 2 * up == size ? position % 2 == 0 : 2 * up < size
    }

    private func coordinates(_ chip: Int) -> [Int] { [chip % x, chip / x % y, chip / (x * y)] }

    private func chip(_ place: [Int]) -> Int { place[0] + x * (place[1] + y * place[2]) }
}
