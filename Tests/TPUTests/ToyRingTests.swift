import TPU
import Testing

@Suite struct ToyRingTests {
    private let rows = 4

    /// Runs the ring; returns what every device gathered, first bytes of rows.
    private func gathered(devices: Int, waitsForNotice: Bool = true) throws -> [[UInt8]] {
        let rowBytes = 64
        let slice = try Slice(topology: SliceTopology(named: "v7x-8"), deviceCount: devices)
        let kernel = try ToyRing(slice, rows: rows, rowBytes: rowBytes)
        let blocks = (0..<devices).map { device in
            (0..<rows * rowBytes).map { UInt8(16 * device + $0 / rowBytes) }
        }
        let bytes = blocks.flatMap { $0 }
        try bytes.withUnsafeBytes { raw in
            let base = try #require(raw.baseAddress)
            for device in 0..<devices {
                slice.bind(kernel.block, device: device, to: base + device * rows * rowBytes)
            }
            _ = try slice.run { (core: Core) async throws(DeviceError) in
                try await kernel.run(core, waitsForNotice: waitsForNotice)
            }
        }
        return try (0..<devices).map { device in
            let contents = try #require(slice.contents(of: kernel.gathered, device: device))
            return (0..<devices * rows).map { contents[$0 * rowBytes] }
        }
    }

    @Test(arguments: [1, 2, 3, 5, 8, 16])
    func everyDeviceGetsEveryBlock(devices: Int) throws {
        let expected = (0..<devices).flatMap { device in (0..<rows).map { UInt8(16 * device + $0) } }
        #expect(try gathered(devices: devices) == Array(repeating: expected, count: devices))
    }

    /// The planted mistake: without the notice a slot is overwritten that may still be read.
    @Test func aSlotThatNobodySaidIsFreeMayNotBeOverwritten() {
        let error = #expect(throws: DeviceError.self) { try gathered(devices: 5, waitsForNotice: false) }
        #expect(error?.code == .race)
        #expect(error?.description.contains("slots") == true, "\(error?.description ?? "")")
    }
}
