import Numerics
import TestSupport
import Testing

/// A stored matrix with the fp32 values it stands for.
final class StoredMatrix {
    let matrix: WeightMatrix
    let values: [Float]
    private let memory: UnsafeMutableRawPointer
    private let scales: UnsafeMutablePointer<Float>

    /// Random elements of `type`, which begin at an odd address.
    init(_ type: ElementType, rows: Int, columns: Int, random: inout SeededRandom) {
        memory = .allocate(byteCount: rows * columns * type.byteCount + 1, alignment: 64)
        scales = .allocate(capacity: rows)
        let elements = memory + 1
        var values: [Float] = []
        let isScaled = type == .float8E4M3
        for row in 0..<rows { scales[row] = isScaled ? 0.25 + Float(row % 7) : 1 }
        for (index, raw) in random.values(rows * columns).enumerated() {
            let scale = scales[index / columns]
            switch type {
            case .float32:
                elements.storeBytes(of: raw, toByteOffset: 4 * index, as: Float.self)
                values.append(raw)
            case .bfloat16:
                let stored = BFloat16(raw)
                elements.storeBytes(of: stored.bitPattern, toByteOffset: 2 * index, as: UInt16.self)
                values.append(stored.float)
            case .float8E4M3:
                let stored = Float8E4M3(raw * 448)
                elements.storeBytes(of: stored.bitPattern, toByteOffset: index, as: UInt8.self)
                values.append(stored.float * scale)
            }
        }
        self.values = values
        matrix = WeightMatrix(
            rows: rows, columns: columns, elementType: type, elements: UnsafeRawPointer(elements),
            scales: isScaled ? UnsafePointer(scales) : nil)
    }

    deinit {
        memory.deallocate()
        scales.deallocate()
    }

    /// x · wᵀ by the kernel, [rowCount, rows].
    func product(_ x: [Float], rowCount: Int, team: ThreadTeam) -> [Float] {
        var y = [Float](repeating: .nan, count: rowCount * matrix.rows)
        x.withUnsafeBufferPointer { x in
            y.withUnsafeMutableBufferPointer { y in
                guard let source = x.baseAddress, let target = y.baseAddress else { return }
                Kernels.multiply(
                    source, rowCount: rowCount, rowStride: matrix.columns, by: matrix, into: target,
                    outputStride: matrix.rows, team: team)
            }
        }
        return y
    }
}

struct MultiplyTests {
    static let types: [ElementType] = [.float32, .bfloat16, .float8E4M3]

    @Test(arguments: types)
    func agreesWithDoublePrecision(type: ElementType) {
        var random = SeededRandom(seed: 51)
        let team = ThreadTeam(threadCount: 2)
        for (rowCount, rows, columns) in [
            (1, 1, 1), (1, 5, 15), (2, 3, 16), (3, 7, 17), (4, 4, 31), (5, 9, 33), (7, 13, 100), (6, 37, 129),
            (17, 67, 255), (33, 130, 513),
        ] {
            let stored = StoredMatrix(type, rows: rows, columns: columns, random: &random)
            let x = random.values(rowCount * columns)
            let y = stored.product(x, rowCount: rowCount, team: team)
            var worst = 0.0
            for row in 0..<rowCount {
                for output in 0..<rows {
                    var (sum, size) = (0.0, 0.0)
                    for k in 0..<columns {
                        let term = Double(x[row * columns + k]) * Double(stored.values[output * columns + k])
                        sum += term
                        size += term.magnitude
                    }
                    let error = (Double(y[row * rows + output]) - sum).magnitude / max(size, 1e-30)
                    worst = error.isNaN ? .infinity : max(worst, error)
                }
            }
            #expect(worst < 1e-6, "\(rowCount) × \(rows) × \(columns)")
        }
    }

    /// A row's bits may depend neither on its neighbours in the batch nor on the number of threads.
    @Test(arguments: types)
    func bitsDependOnNothingButTheRow(type: ElementType) {
        var random = SeededRandom(seed: 52)
        let (rows, columns) = (203, 357)
        let stored = StoredMatrix(type, rows: rows, columns: columns, random: &random)
        let x = random.values(17 * columns)
        let alone = ThreadTeam(threadCount: 1)
        let expected = (0..<17).flatMap { row in
            stored.product(Array(x[row * columns..<(row + 1) * columns]), rowCount: 1, team: alone)
        }.map(\.bitPattern)
        for threadCount in 1...3 {
            let team = ThreadTeam(threadCount: threadCount)
            for rowCount in 1...17 {
                let y = stored.product(Array(x.prefix(rowCount * columns)), rowCount: rowCount, team: team)
                let isSame = y.map(\.bitPattern) == Array(expected.prefix(rowCount * rows))
                #expect(isSame, "\(rowCount) rows on \(threadCount) threads")
            }
        }
    }

    @Test func rowRangesAreTheSameRows() {
        var random = SeededRandom(seed: 53)
        for type in Self.types {
            let stored = StoredMatrix(type, rows: 11, columns: 19, random: &random)
            let x = random.values(19)
            let whole = stored.product(x, rowCount: 1, team: ThreadTeam(threadCount: 1))
            let part = stored.matrix.rows(3..<8)
            var y = [Float](repeating: 0, count: 5)
            Kernels.multiply(
                x, rowCount: 1, rowStride: 19, by: part, into: &y, outputStride: 5, team: ThreadTeam(threadCount: 1))
            #expect(y == Array(whole[3..<8]))
        }
    }
}
