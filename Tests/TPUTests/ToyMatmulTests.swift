import Foundation
import TPU
import Testing

@Suite struct ToyMatmulTests {
    private let rows = 16
    private let columns = 64
    private let depth = 32
    private let tile = 8

    /// The kernel author's page shows this very kernel, and it is as short as it says.
    @Test func thePageShowsTheToyKernel() throws {
        let tests = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        let page = try String(
            contentsOf: tests.deletingLastPathComponent().deletingLastPathComponent().appendingPathComponent(
                "Sources/TPU/README.md"), encoding: .utf8)
        let kernel = try String(contentsOf: tests.appendingPathComponent("ToyMatmul.swift"), encoding: .utf8)
        #expect(
            kernel.split(separator: "\n", omittingEmptySubsequences: false).count <= 61, "60 lines and the last newline"
        )
        func code(_ text: some StringProtocol) -> String {
            text.split(whereSeparator: \.isNewline).map { $0.components(separatedBy: "//")[0] }.joined()
                .filter { !$0.isWhitespace }
        }
        let blocks = page.components(separatedBy: "```swift\n").dropFirst()
        let first = try #require(blocks.first?.components(separatedBy: "```").first)
        #expect(code(kernel).contains(code(first)))
    }

    @Test func computesTheProduct() throws {
        let a = (0..<rows * depth).map { Float($0 % 13) - 6 }
        let b = (0..<columns * depth).map { Float($0 % 7) - 3 }
        let slice = try Slice(topology: SliceTopology(named: "v7x-4"), deviceCount: 1)
        let kernel = try ToyMatmul(slice, rows: rows, columns: columns, depth: depth, tile: tile)
        try a.withUnsafeBytes { aBytes in
            try b.withUnsafeBytes { bBytes in
                slice.bind(kernel.a, device: 0, to: try #require(aBytes.baseAddress))
                slice.bind(kernel.b, device: 0, to: try #require(bBytes.baseAddress))
                _ = try slice.run { (core: Core) async throws(DeviceError) in try await kernel.run(core) }
            }
        }
        let c = try #require(slice.contents(of: kernel.c, device: 0)).bindMemory(to: Float.self)
        for row in 0..<rows {
            for column in 0..<columns {
                let expected = (0..<depth).reduce(Float(0)) { $0 + a[row * depth + $1] * b[column * depth + $1] }
                #expect(c[column * rows + row] == expected)
            }
        }
    }

    @Test func shapesTakeTheSameTimeAsTensors() throws {
        func latency(storesTensors: Bool) throws -> SimulationResult {
            let slice = try Slice(
                topology: SliceTopology(named: "v7x-4"), deviceCount: 1, storesTensors: storesTensors)
            let kernel = try ToyMatmul(slice, rows: rows, columns: columns, depth: depth, tile: tile)
            let zeros = [Float](repeating: 0, count: columns * depth)
            return try zeros.withUnsafeBytes { bytes in
                if storesTensors {
                    slice.bind(kernel.a, device: 0, to: try #require(bytes.baseAddress))
                    slice.bind(kernel.b, device: 0, to: try #require(bytes.baseAddress))
                }
                return try slice.run { (core: Core) async throws(DeviceError) in try await kernel.run(core) }
            }
        }
        let shapes = try latency(storesTensors: false)
        #expect(try latency(storesTensors: true) == shapes)
        #expect(shapes.latency > 0)
    }

    @Test func loadsHideBehindTheMatrixUnits() throws {
        let slice = try Slice(
            topology: SliceTopology(named: "v7x-4"), deviceCount: 1, storesTensors: false, recordsTimeline: true)
        let kernel = try ToyMatmul(slice, rows: 256, columns: 4096, depth: 4096, tile: 256)
        let result = try slice.run { (core: Core) async throws(DeviceError) in try await kernel.run(core) }
        let matrix = result.devices[0].busy[.matrix]
        #expect(result.devices[0].memoryBusy > matrix / 10)
        // All but the first load and the last store are hidden.
        #expect(result.latency < matrix * 5 / 4)
        let trace = String(decoding: try #require(result.timeline).chromeTrace(), as: UTF8.self)
        #expect(trace.contains("matrix unit") && trace.contains("HBM → B slots [1]"))
    }
}
