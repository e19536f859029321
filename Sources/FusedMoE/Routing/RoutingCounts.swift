/// Rows of every (outer tile, source device, expert), and the sums kernels derive from them.
public struct RoutingCounts: Sendable, Equatable {
    /// Outer tiles of a device.
    public let tiles: Int
    /// Devices.
    public let devices: Int
    /// Routed experts.
    public let experts: Int
    private let expertsPerDevice: Int
    /// [tile, source, expert]
    private let rows: [Int32]
    /// [tile, source, expert]: rows of lower ranks.
    private let starts: [Int32]
    /// [tile, expert]
    private let sizes: [Int32]

    init(_ table: RoutingTable, _ problem: MoEProblem, _ kernel: KernelVersion, bt: Int) {
        tiles = (problem.rowsPerDevice(kernel) + bt - 1) / bt
        devices = problem.devices
        experts = table.experts
        expertsPerDevice = problem.expertsPerDevice
        var rows = [Int32](repeating: 0, count: tiles * devices * experts)
        for device in 0..<devices {
            let first = problem.firstToken(device: device)
            for row in 0..<problem.tokenCount(device: device) {
                let base = (row / bt * devices + device) * experts
                for k in 0..<table.topK {
                    let id = Int(table.expertIDs[(first + row) * table.topK + k])
                    if id >= 0 { rows[base + id] += 1 }
                }
            }
        }
        self.rows = rows
        var starts = rows
        var sizes = [Int32](repeating: 0, count: tiles * experts)
        for tile in 0..<tiles {
            for device in 0..<devices {
                for expert in 0..<experts {
                    let index = (tile * devices + device) * experts + expert
                    starts[index] = sizes[tile * experts + expert]
                    sizes[tile * experts + expert] += rows[index]
                }
            }
        }
        self.starts = starts
        self.sizes = sizes
    }

    /// Rows that `source` sends to `expert` in outer tile `tile` (d2e).
    public func rows(tile: Int, source: Int, expert: Int) -> Int {
        Int(rows[(tile * devices + source) * experts + expert])
    }

    /// Where the rows of `source` start in the expert's landing zone.
    public func start(tile: Int, source: Int, expert: Int) -> Int {
        Int(starts[(tile * devices + source) * experts + expert])
    }

    /// Rows that an expert gets in outer tile `tile`.
    public func size(tile: Int, expert: Int) -> Int { Int(sizes[tile * experts + expert]) }

    /// The experts of `device` that got rows in `tile`, ascending: the compact active-expert list.
    public func activeExperts(tile: Int, device: Int) -> [Int] {
        (device * expertsPerDevice..<(device + 1) * expertsPerDevice).filter { size(tile: tile, expert: $0) > 0 }
    }

    /// Rows that a device sends in `tile`, to itself included.
    public func sentRows(tile: Int, source: Int) -> Int {
        (0..<experts).reduce(0) { $0 + rows(tile: tile, source: source, expert: $1) }
    }

    /// Rows that all experts of a device get over all tiles.
    public func receivedRows(device: Int) -> Int {
        (0..<tiles).reduce(0) { sum, tile in
            sum
                + (device * expertsPerDevice..<(device + 1) * expertsPerDevice).reduce(0) {
                    $0 + size(tile: tile, expert: $1)
                }
        }
    }

    /// Tiles of `bts` rows that all experts of a device take over all outer tiles.
    public func rowTiles(device: Int, bts: Int) -> Int {
        (0..<tiles).reduce(0) { sum, tile in
            sum
                + activeExperts(tile: tile, device: device).reduce(0) {
                    $0 + (size(tile: tile, expert: $1) + bts - 1) / bts
                }
        }
    }
}
