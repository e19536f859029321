import Glibc
import Numerics
import TestSupport
import Testing

struct LatentAttentionTests {
    private static let (dimension, width) = (40, 24)

    /// Sixteen queries over all latents, block by block, [16, width]; `seen` latents each.
    private func attend(
        _ queries: [Float], _ latents: [Float], seen: [Int], queryCount: Int = 16, keys: Int
    ) -> [Float] {
        let lanes = Kernels.queryLanes
        var (maximum, total) = ([Float](repeating: -.infinity, count: lanes), [Float](repeating: 0, count: lanes))
        var output = [Float](repeating: 0, count: lanes * Self.width)
        var scratch = [Float](repeating: .nan, count: Kernels.attendScratch)
        for start in stride(from: 0, to: keys, by: Kernels.blockTokens) {
            let count = min(Kernels.blockTokens, keys - start)
            let visible = seen.map { Int32(max(0, min(count, $0 - start))) }
            latents.withUnsafeBufferPointer { latents in
                guard let base = latents.baseAddress else { return }
                Kernels.attendBlock(
                    queries: queries, queryCount: queryCount, latents: base + start * Self.dimension,
                    stride: Self.dimension, keyCount: count,
                    visible: visible.allSatisfy { $0 == Int32(count) } ? nil : visible, dimension: Self.dimension,
                    width: Self.width, maximum: &maximum, total: &total, output: &output, scratch: &scratch)
            }
        }
        return (0..<lanes * Self.width).map { output[$0] / total[$0 / Self.width] }
    }

    /// A query's weighted mean of the latents that it sees, in double precision.
    private func reference(_ queries: [Float], _ latents: [Float], lane: Int, seen: Int) -> [Double] {
        let scores = (0..<seen).map { key in
            (0..<Self.dimension).reduce(0.0) {
                $0 + Double(queries[$1 * 16 + lane]) * Double(latents[key * Self.dimension + $1])
            }
        }
        let highest = scores.max() ?? 0
        let weights = scores.map { exp($0 - highest) }
        let total = weights.reduce(0, +)
        return (0..<Self.width).map { column in
            (0..<seen).reduce(0.0) { $0 + weights[$1] * Double(latents[$1 * Self.dimension + column]) } / total
        }
    }

    @Test(arguments: [1, 5, 6, 63, 64, 65, 200]) func everyQuerySeesWhatLiesBeforeItAndNothingElse(keys: Int) {
        var random = SeededRandom(seed: UInt64(keys))
        let (queries, latents) = (random.values(Self.dimension * 16), random.values(keys * Self.dimension))
        let seen = (0..<16).map { max(1, keys - 5 * $0) }
        let together = attend(queries, latents, seen: seen, keys: keys)
        for lane in 0..<16 {
            let row = Array(together[lane * Self.width..<(lane + 1) * Self.width])
            let expected = reference(queries, latents, lane: lane, seen: seen[lane])
            #expect(zip(row, expected).allSatisfy { (Double($0) - $1).magnitude < 2e-6 }, "lane \(lane)")
            // The same query alone in another lane, with no latent behind what it sees.
            var alone = [Float](repeating: 0, count: Self.dimension * 16)
            for d in 0..<Self.dimension { alone[d * 16 + 2] = queries[d * 16 + lane] }
            let again = attend(
                alone, latents, seen: [Int](repeating: seen[lane], count: 16), queryCount: 3, keys: seen[lane])
            #expect(Array(again[2 * Self.width..<3 * Self.width]) == row, "lane \(lane)")
        }
    }

    @Test(arguments: MultiplyTests.types) func rowsSideBySideAreMultipliedAsRowsAlone(type: ElementType) {
        var random = SeededRandom(seed: 61)
        for (rows, columns) in [(3, 5), (16, 32), (12, 100), (40, 192)] {
            let stored = StoredMatrix(type, rows: rows, columns: columns, random: &random)
            let groups = 2
            let x = random.values(groups * rows * 16)
            let stride = columns * 16 + 7
            var out = [Float](repeating: .nan, count: groups * stride)
            var scratch = [Float](
                repeating: .nan, count: Kernels.transposedScratch(stored.matrix, groups: groups))
            Kernels.multiplyTransposedLanes(
                x, groups: groups, by: stored.matrix, into: &out, outputStride: stride, scratch: &scratch)
            for group in 0..<groups {
                for lane in 0..<16 {
                    let row = (0..<rows).map { x[(group * rows + $0) * 16 + lane] }
                    var expected = [Float](repeating: .nan, count: columns)
                    Kernels.multiplyTransposed(row, by: stored.matrix, into: &expected)
                    let got = (0..<columns).map { out[group * stride + $0 * 16 + lane] }
                    #expect(got == expected, "\(rows) × \(columns), lane \(lane)")
                }
            }
        }
    }
}
