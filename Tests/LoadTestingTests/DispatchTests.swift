import Foundation
import LoadTesting
import Testing

struct DispatchTests {
    private func gaps(_ times: [UInt64]) -> Distribution {
        Distribution(zip([0] + times, times).map { Double($1 - $0) / 1e6 })
    }

    /// Gamma gaps of shape b have mean 1/rate and coefficient of variation 1/√b.
    @Test(arguments: [0.25, 1, 4, 100], [UInt64(1), 2, 3]) func gapsHaveTheirMeanAndVariation(
        burstiness: Double, seed: UInt64
    ) {
        let process = ArrivalProcess(.constant(50), burstiness: burstiness, seed: seed)
        let gaps = gaps(process.times(count: 100_000))
        #expect(abs(gaps.mean * 50 - 1) < 0.05, "mean \(gaps.mean), seed \(seed)")
        let variation = gaps.standardDeviation / gaps.mean
        #expect(abs(variation * burstiness.squareRoot() - 1) < 0.05, "variation \(variation), seed \(seed)")
    }

    @Test func arrivalsRepeatBySeedAndOnlyBySeed() {
        let one = ArrivalProcess(.constant(10), seed: 1)
        #expect(one.times(count: 50) == ArrivalProcess(.constant(10), seed: 1).times(count: 50))
        #expect(one.times(count: 50) != ArrivalProcess(.constant(10), seed: 2).times(count: 50))
        #expect(Array(one.times(count: 50).prefix(20)) == one.times(count: 20))
        #expect(ArrivalProcess(.unlimited, seed: 1).times(count: 3) == [0, 0, 0])
    }

    @Test func aRampEndsFasterThanItBegins() {
        for rate in [ArrivalProcess.Rate.linear(from: 10, to: 100), .exponential(from: 10, to: 100)] {
            let times = ArrivalProcess(rate, burstiness: 1e6, seed: 1).times(count: 1001).map { Double($0) / 1e6 }
            #expect(abs((times[1] - times[0]) * 10 - 1) < 0.05)
            #expect(abs((times[1000] - times[999]) * 100 - 1) < 0.05)
            let middle = rate == .linear(from: 10, to: 100) ? 55 : 1000.0.squareRoot()
            #expect(abs((times[501] - times[500]) * middle - 1) < 0.05)
        }
    }

    @Test func aClosedLoopKeepsItsConcurrency() {
        var controller = LoadController(due: [0, 0, 0, 0], limit: ConcurrencyLimit(2))
        #expect(controller.advance(to: 0) == .init(send: [0, 1]))
        #expect(controller.advance(to: 5) == .init())
        controller.finished()
        #expect(controller.advance(to: 6) == .init(send: [2]))
        controller.finished()
        controller.finished()
        #expect(controller.advance(to: 7) == .init(send: [3]))
        #expect(!controller.isDone)
        controller.finished()
        #expect(controller.isDone)
    }

    @Test func anOpenLoopSendsWhenDueAndHoldsWhatExceedsTheLimit() {
        var controller = LoadController(due: [10, 20, 20, 50], limit: ConcurrencyLimit(2))
        #expect(controller.advance(to: 0) == .init(send: [], wakeAt: 10))
        #expect(controller.advance(to: 10) == .init(send: [0], wakeAt: 20))
        #expect(controller.advance(to: 20) == .init(send: [1]))
        controller.finished()
        #expect(controller.advance(to: 30) == .init(send: [2]))
        controller.finished()
        #expect(controller.advance(to: 31) == .init(send: [], wakeAt: 50))
        controller.stop()
        #expect(controller.advance(to: 60) == .init())
        #expect(!controller.isDone)
        controller.finished()
        #expect(controller.isDone && controller.next == 3)
    }

    @Test func concurrencyGrowsOverItsRamp() {
        var controller = LoadController(
            due: Array(repeating: 0, count: 9), limit: ConcurrencyLimit(5, rampMicroseconds: 1000))
        var sent: [UInt64] = []
        var time: UInt64 = 0
        while true {
            let step = controller.advance(to: time)
            sent += step.send.map { _ in time }
            guard let next = step.wakeAt else { break }
            #expect(next > time)
            time = next
        }
        #expect(sent == [0, 250, 500, 750, 1000])
    }
}
