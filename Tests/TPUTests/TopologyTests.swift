import TPU
import Testing

@Suite struct TopologyTests {
    /// Load of the busiest link per axis under a uniform all-to-all, in units of one device's payload (docs/kernels.md#the-device).
    private func loads(_ topology: SliceTopology) -> [Double] {
        var loads = [Double](repeating: 0, count: topology.linkCount)
        let devices = topology.deviceCount
        for source in 0..<devices {
            for target in 0..<devices where source / 2 != target / 2 {
                for link in topology.route(fromChip: source / 2, toChip: target / 2) {
                    loads[link] += 1 / Double(devices)
                }
            }
        }
        return (0..<3).map { axis in
            loads.enumerated().filter { $0.offset % 6 / 2 == axis }.map(\.element).max() ?? 0
        }
    }

    @Test func linkLoadsOfAUniformExchange() throws {
        #expect(loads(try SliceTopology(named: "v7x-16")) == [1, 1, 2])
        #expect(loads(try SliceTopology(named: "v7x-16", wraps: true)) == [1, 1, 1])
    }

    @Test func meanHops() throws {
        for (wraps, mean) in [(false, 2.25), (true, 2.0)] {
            let topology = try SliceTopology(named: "v7x-16", wraps: wraps)
            let hops = (0..<32).flatMap { a in (0..<32).map { topology.route(fromChip: a / 2, toChip: $0 / 2).count } }
            #expect(Double(hops.reduce(0, +)) / 1024 == mean)
        }
    }

    @Test func sizes() throws {
        #expect(
            try SliceTopology.names.map { try SliceTopology(named: $0).deviceCount } == [8, 16, 32, 128])
        #expect(try SliceTopology(named: "v7x-64").wraps)
        #expect(throws: DeviceError.self) { try SliceTopology(named: "v7x-5") }
    }

    @Test func tooManyDevicesAreRefused() throws {
        let topology = try SliceTopology(named: "v7x-4")
        let error = #expect(throws: DeviceError.self) { try Slice(topology: topology, deviceCount: 9) }
        #expect(error?.description.contains("1 too many") == true)
    }
}
