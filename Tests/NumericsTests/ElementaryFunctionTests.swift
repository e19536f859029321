import Glibc
import Numerics
import TestSupport
import Testing

struct ElementaryFunctionTests {
    /// Distance in units of the last place of the larger.
    private func distance(_ a: Double, _ b: Double) -> Double { (a - b).magnitude / max(a.magnitude, b.magnitude).ulp }

    @Test func theyAgreeWithTheLibraryOfTheMachine() {
        var random = SeededRandom(seed: 71)
        for _ in 0..<20_000 {
            let x = Double.random(in: -700...700, using: &random)
            #expect(distance(Kernels.exponential(x), exp(x)) <= 2, "\(x)")
            let small = Double.random(in: -1...0, using: &random)
            #expect(distance(Kernels.exponential(small), exp(small)) <= 2, "\(small)")
            let positive = exp(Double.random(in: -300...300, using: &random))
            #expect(distance(Kernels.logarithm(positive), log(positive)) <= 2, "\(positive)")
            let exponent = Double.random(in: -1...1, using: &random)
            #expect(distance(Kernels.power(1e4, exponent), pow(1e4, exponent)) <= 16, "\(exponent)")
            let angle = Double.random(in: -1e6...1e6, using: &random)
            let (cosine, sine) = Kernels.cosineAndSine(angle)
            #expect((cosine - cos(angle)).magnitude < 1e-15 && (sine - sin(angle)).magnitude < 1e-15, "\(angle)")
        }
    }

    @Test func theirEndsAreExact() {
        #expect(Kernels.exponential(0.0) == 1 && Kernels.logarithm(1) == 0 && Kernels.logarithm(2) == log(2))
        #expect(Kernels.exponential(-1000.0) == 0 && Kernels.exponential(1000.0) == .infinity)
        #expect(distance(Kernels.power(2, -3), 0.125) <= 2 && distance(Kernels.power(2, -0.5), 0.5.squareRoot()) <= 2)
        #expect(Kernels.cosineAndSine(0) == (1, 0))
    }
}
