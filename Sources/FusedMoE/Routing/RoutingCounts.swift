/// Rows of every (source device, expert) in one outer token tile, and the sums that kernels derive from them (starts
/// and sizes of the metadata step, docs/kernels.md#v2).
public struct RoutingCounts: Sendable, Equatable {
    private let devices: Int
    private let experts: Int
    private let expertsPerDevice: Int
    /// [source, expert]
    private let rows: [Int32]
    /// [source, expert]: rows of lower ranks; after the last source the sums over all.
    private let starts: [Int32]

    /// The counts [source, expert] of a call.
    init(rows: [Int32], _ problem: MoEProblem) {
        (devices, experts) = (problem.devices, problem.shape.experts)
        expertsPerDevice = problem.expertsPerDevice
        self.rows = rows
        var starts = [Int32](repeating: 0, count: (devices + 1) * experts)
        for index in rows.indices { starts[index + experts] = starts[index] + rows[index] }
        self.starts = starts
    }

    /// Nothing was routed yet.
    init(_ problem: MoEProblem) {
        self.init(rows: [Int32](repeating: 0, count: problem.devices * problem.shape.experts), problem)
    }

    /// Rows that `source` sends to `expert`.
    public func rows(source: Int, expert: Int) -> Int { Int(rows[source * experts + expert]) }

    /// Where the rows of `source` start in the expert's landing zone: those of lower ranks come first.
    public func start(source: Int, expert: Int) -> Int { Int(starts[source * experts + expert]) }

    /// Where the rows of `source` start in the landing zone of every expert.
    public func starts(source: Int) -> [Int] { (0..<experts).map { start(source: source, expert: $0) } }

    /// Rows that an expert gets.
    public func size(expert: Int) -> Int { start(source: devices, expert: expert) }

    /// Positions of the experts of `device` that got rows, ascending: the compact active-expert list.
    public func activeExperts(device: Int) -> [Int] {
        (0..<expertsPerDevice).filter { size(expert: device * expertsPerDevice + $0) > 0 }
    }

    /// Rows that a device sends, to itself included; as many results come back.
    public func rowsSent(source: Int) -> Int {
        (0..<experts).reduce(0) { $0 + rows(source: source, expert: $1) }
    }
}

extension RoutingTable {
    /// The counts of every outer tile of `bt` rows per device.
    public func counts(_ problem: MoEProblem, kernel: KernelVersion, bt: Int) -> [RoutingCounts] {
        let tiles = (problem.rowsPerDevice(kernel) + bt - 1) / bt
        return (0..<tiles).map { tile in
            var rows = [Int32](repeating: 0, count: problem.devices * experts)
            for device in 0..<problem.devices {
                let first = problem.firstToken(device: device)
                for row in tile * bt..<max(tile * bt, min((tile + 1) * bt, problem.tokenCount(device: device))) {
                    for id in expertIDs[(first + row) * topK..<(first + row + 1) * topK] where id >= 0 {
                        rows[device * experts + Int(id)] += 1
                    }
                }
            }
            return RoutingCounts(rows: rows, problem)
        }
    }
}
