import Glibc
import Numerics
import TestSupport
import Testing

struct LinearAttentionTests {
    /// Both kernel forms and a double-precision recurrence, token by token, over chunks of 64 and a rest.
    @Test(arguments: [8, 16, 48, 64, 128], [-0.9, -0.05, -1e-4])
    func chunkAgreesWithRecurrence(width: Int, exponent: Double) {
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
        let (chunked, chunkState) = chunks(q, k, v, width: width, tokens: tokens, exponent: exponent)
        let (stepped, stepState) = steps(q, k, v, width: width, tokens: tokens, exponent: exponent)
        #expect(relativeError(chunked, expected) < 2e-5)
        #expect(relativeError(stepped, expected) < 2e-5)
        #expect(relativeError(chunkState, reference) < 2e-5)
        #expect(relativeError(stepState, reference) < 2e-5)
    }

    private func chunks(
        _ q: [Float], _ k: [Float], _ v: [Float], width: Int, tokens: Int, exponent: Double
    ) -> (out: [Float], state: [Float]) {
        let size = Kernels.chunkTokens
        let powers = (0...size).map { Float(exp(exponent * Double($0))) }
        var state = [Float](repeating: 0, count: width * width)
        var out = [Float](repeating: .nan, count: tokens * width)
        var scratch = [Float](repeating: .nan, count: Kernels.linearAttentionScratch(width: width))
        for start in stride(from: 0, to: tokens, by: size) {
            let count = min(size, tokens - start)
            let range = start * width..<(start + count) * width
            var part = [Float](repeating: .nan, count: count * width)
            Kernels.linearAttentionChunk(
                state: &state, width: width, count: count, powers: powers, query: Array(q[range]),
                key: Array(k[range]), value: Array(v[range]), stride: width, into: &part, outputStride: width,
                scratch: &scratch)
            out.replaceSubrange(range, with: part)
        }
        return (out, state)
    }

    private func steps(
        _ q: [Float], _ k: [Float], _ v: [Float], width: Int, tokens: Int, exponent: Double
    ) -> (out: [Float], state: [Float]) {
        var state = [Float](repeating: 0, count: width * width)
        var out: [Float] = []
        for t in 0..<tokens {
            let range = t * width..<(t + 1) * width
            var row = [Float](repeating: .nan, count: width)
            Kernels.linearAttentionStep(
                state: &state, width: width, decay: Float(exp(exponent)), query: Array(q[range]),
                key: Array(k[range]), value: Array(v[range]), into: &row)
            out += row
        }
        return (out, state)
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
