import Glibc
import Numerics
import TestSupport
import Testing

struct LinearAttentionTests {
    /// Against a recurrence in double precision, and bit for bit however the tokens are grouped.
    @Test(arguments: [6, 8, 16, 48, 64, 72, 128], [-0.9, -0.05, -1e-4])
    func tokensInAnyGroupsAgreeWithTheRecurrence(width: Int, exponent: Double) {
        var random = SeededRandom(seed: UInt64(width))
        let tokens = 64 + 64 + 37
        let (q, k, v) = (random.values(tokens * width), random.values(tokens * width), random.values(tokens * width))
        var reference = [Double](repeating: 0, count: width * width)
        var expected: [Double] = []
        for t in 0..<tokens {
            for d in 0..<width {
                for c in 0..<width {
                    reference[d * width + c] *= exp(exponent)
                    reference[d * width + c] += Double(k[t * width + d]) * Double(v[t * width + c])
                }
            }
            for c in 0..<width {
                let sum = (0..<width).reduce(0.0) { $0 + Double(q[t * width + $1]) * reference[$1 * width + c] }
                expected.append(sum / Double(width).squareRoot())
            }
        }
        let input = Input(query: q, key: k, value: v, width: width, decay: Float(exp(exponent)))
        let oneByOne = input.run([Int](repeating: 1, count: tokens))
        #expect(relativeError(oneByOne.out, expected) < 2e-5)
        #expect(relativeError(oneByOne.state, reference) < 2e-5)
        for groups in [[tokens], [64, 64, 37], [7, 8, 9, 63, 65, 13], [1, 100, 2, 62]] {
            #expect(input.run(groups) == oneByOne, "\(groups)")
        }
    }

    private struct Output: Equatable {
        var out: [Float]
        var state: [Float]
    }

    private struct Input {
        let query: [Float]
        let key: [Float]
        let value: [Float]
        let width: Int
        let decay: Float

        func run(_ groups: [Int]) -> Output {
            var output = Output(
                out: [Float](repeating: .nan, count: query.count), state: [Float](repeating: 0, count: width * width))
            var scratch = [Float](repeating: .nan, count: Kernels.linearAttentionScratch(width: width))
            var first = 0
            for count in groups {
                let range = first * width..<(first + count) * width
                var part = [Float](repeating: .nan, count: count * width)
                Kernels.linearAttention(
                    state: &output.state, width: width, count: count, decay: decay, query: Array(query[range]),
                    key: Array(key[range]), value: Array(value[range]), stride: width, into: &part,
                    outputStride: width, scratch: &scratch)
                output.out.replaceSubrange(range, with: part)
                first += count
            }
            return output
        }
    }

    /// Largest difference over the largest expected magnitude.
    private func relativeError(_ values: [Float], _ expected: [Double]) -> Double {
        let size = expected.reduce(0) { max($0, $1.magnitude) }
        return zip(values, expected).reduce(0) { worst, pair in
            let error = (Double(pair.0) - pair.1).magnitude / size
            return error.isNaN ? .infinity : max(worst, error)
        }
    }
}
