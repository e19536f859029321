import Foundation
import Numerics
import TestSupport
import Testing

struct ReductionTests {
    @Test func maximumAndItsFirstIndex() {
        var random = SeededRandom(seed: 61)
        for count in [1, 2, 15, 16, 17, 33, 100] {
            var values = random.values(count)
            #expect(Kernels.maximum(values, count) == values.max())
            let place = count / 2
            values[place] = 9
            values[count - 1] = 9
            #expect(Kernels.firstIndex(of: 9, in: values, count) == min(place, count - 1))
            #expect(Kernels.firstIndex(of: 10, in: values, count) == count)
            values[place] = .nan
            #expect(Kernels.maximum(values, count).isNaN, "\(count) values")
        }
        #expect(Kernels.maximum([0], 0) == -.infinity)
    }

    @Test func exponentialsAgreeWithTheOneOfASingleValue() {
        let values = (0..<45).map { Float($0) * 5 - 110 }
        var out = [Float](repeating: 0, count: values.count)
        Kernels.exponentials(values, values.count, shift: 1.5, divisor: 0.7, into: &out)
        #expect(out == values.map { Kernels.exponential(($0 - 1.5) / 0.7) })
    }

    @Test func exponentialIsCloseOverItsRange() {
        for step in -8700...8800 {
            let x = Float(step) / 100
            let error = abs(Double(Kernels.exponential(x)) / exp(Double(x)) - 1)
            #expect(error < 3e-7, "e^\(x)")
        }
        #expect(Kernels.exponential(Float(-100)) == 0 && Kernels.exponential(-Float.infinity) == 0)
    }

    @Test func sumIsTheSum() {
        for count in [0, 1, 7, 8, 9, 1000] {
            let values = (0..<count).map { Float($0) }
            #expect(Kernels.sum(values, count) == Double(count * max(0, count - 1) / 2))
        }
    }

    @Test func findsTheFirstNaNOfEightBits() {
        for count in [1, 63, 64, 65, 200] {
            var bytes = (0..<count).map { UInt8(truncatingIfNeeded: $0 % 127 + ($0 & 1) * 128) }
            #expect(Float8E4M3.firstNaN(bytes, count) == nil)
            for place in [0, count / 2, count - 1] {
                for pattern: UInt8 in [0x7F, 0xFF] {
                    let kept = bytes[place]
                    bytes[place] = pattern
                    #expect(Float8E4M3.firstNaN(bytes, count) == place)
                    bytes[place] = kept
                }
            }
        }
    }
}
