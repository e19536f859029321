import Scheduling
import Serving
import TestSupport
import Testing

@Suite struct AdmissionQueueTests {
    private enum Reason: Equatable { case new, full, gone }

    private func queue(_ requests: [Request], passes: Int = 3, looks: Int = 64) -> AdmissionQueue<Reason> {
        var queue = AdmissionQueue<Reason>(passes: passes, looks: looks)
        for (sequence, request) in requests.enumerated() {
            queue.enter(request, sequence: UInt64(sequence), expires: 1000, because: .new)
        }
        return queue
    }

    private func request(_ id: UInt64, priority: Int = 0) -> Request {
        Request(id: id, promptCount: 1, maximumTokens: 1, priority: priority)
    }

    /// Tries all in a pass; those in `fitting` are let in.
    private func run(_ queue: inout AdmissionQueue<Reason>, _ fitting: Set<UInt64>) -> [UInt64] {
        var tried: [UInt64] = []
        var pass = queue.pass()
        while let id = queue.next(&pass) {
            tried.append(id)
            if fitting.contains(id) { queue.admit(&pass) } else { queue.deny(&pass, because: .full) }
        }
        return tried
    }

    @Test func whoMattersMoreGoesFirstThenWhoWasInThenWhoCameFirst() {
        var queue = queue([request(1), request(2, priority: 1), request(3)])
        queue.enter(request(4), sequence: 9, wasIn: true, expires: 1000, because: .new)
        queue.enter(request(5, priority: 1), sequence: 10, wasIn: true, expires: 1000, because: .new)
        #expect(run(&queue, []) == [5, 2, 4, 1, 3])
    }

    @Test func whoDoesNotFitIsPassedOverOnlySoOften() {
        var queue = queue((1...6).map { request($0) })
        #expect(run(&queue, [2, 3]) == [1, 2, 3, 4, 5, 6], "1 was passed over twice")
        #expect(run(&queue, [4]) == [1, 4], "and a third time; then nobody passes")
        #expect(run(&queue, [5, 6]) == [1])
        #expect(run(&queue, [1, 5]) == [1, 5, 6], "until it is in")
        #expect(queue.count == 1 && queue.reason(of: 6) != nil)
    }

    /// Two are looked at, and one is passed over once at most: who is tried and who is left, whoever of three fits, and
    /// whether the first was passed over before.
    @Test func aPassEndsWhereItMustInEveryState() {
        let rows: [(fitting: Set<UInt64>, fresh: [[UInt64]], passed: [[UInt64]])] = [
            ([], [[1, 2], [1, 2, 3]], [[1], [1, 2, 3]]), ([1], [[1, 2, 3], [2, 3]], [[1, 2, 3], [2, 3]]),
            ([2], [[1, 2], [1, 3]], [[1], [1, 2, 3]]), ([3], [[1, 2], [1, 2, 3]], [[1], [1, 2, 3]]),
            ([1, 2], [[1, 2, 3], [3]], [[1, 2, 3], [3]]), ([1, 3], [[1, 2, 3], [2]], [[1, 2, 3], [2]]),
            ([2, 3], [[1, 2], [1, 3]], [[1], [1, 2, 3]]), ([1, 2, 3], [[1, 2, 3], []], [[1, 2, 3], []]),
        ]
        for (fitting, fresh, passed) in rows {
            for (isPassed, wanted) in [(false, fresh), (true, passed)] {
                var queue = queue([request(1), request(9)], passes: 1, looks: 2)
                if isPassed { #expect(run(&queue, [9]) == [1, 9]) } else { queue.leave(9) }
                for id in 2...3 as ClosedRange<UInt64> {
                    queue.enter(request(id), sequence: id, expires: 1000, because: .new)
                }
                #expect(run(&queue, fitting) == wanted[0], "\(fitting), passed over: \(isPassed)")
                #expect([1, 2, 3].filter { queue.reason(of: $0) != nil } == wanted[1])
            }
        }
    }

    @Test func aPassLooksAtSoManyAtMost() {
        var queue = queue((1...6).map { request($0) }, looks: 4)
        #expect(run(&queue, []) == [1, 2, 3, 4])
        #expect(queue.reason(of: 4) == .full && queue.reason(of: 5) == .new && queue.reason(of: 7) == nil)
    }

    @Test func aWaitEndsAtItsTimeOrAtThatOfItsReason() {
        var queue = queue([request(1), request(2)])
        var pass = queue.pass()
        _ = queue.next(&pass)
        queue.deny(&pass, because: .gone, ends: 300)
        #expect(queue.nextEnd == 300 && queue.expire(now: 299).isEmpty)
        pass = queue.pass()
        queue.deny(&pass, because: .gone, ends: 400)
        #expect(queue.nextEnd == 300, "who waits for it already keeps its time")
        pass = queue.pass()
        queue.deny(&pass, because: .full)
        #expect(queue.nextEnd == 1000, "what has come back ends nothing")
        pass = queue.pass()
        queue.deny(&pass, because: .gone, ends: 500)
        #expect(queue.expire(now: 500).map(\.id) == [1] && queue.count == 1)
        queue.leave(2)
        #expect(queue.isEmpty && queue.nextEnd == nil)
    }

    /// Whatever comes and fits, nobody is let in behind someone who was passed over often enough.
    @Test(arguments: 1...30 as ClosedRange<UInt64>)
    func nobodyIsPassedOverMoreOftenThanAllowed(seed: UInt64) {
        var generator = SeededRandom(seed: seed)
        var queue = AdmissionQueue<Reason>(passes: 4, looks: 16)
        var passed: [UInt64: Int] = [:]
        for round in 0..<400 as Range<UInt64> {
            queue.enter(
                request(round, priority: Int.random(in: 0...2, using: &generator)), sequence: round, expires: .max,
                because: .new)
            var pass = queue.pass()
            var denied: [UInt64] = []
            while let id = queue.next(&pass) {
                if Int.random(in: 0..<3, using: &generator) == 0 {
                    queue.admit(&pass)
                    for other in denied { passed[other, default: 0] += 1 }
                } else {
                    queue.deny(&pass, because: .full)
                    denied.append(id)
                }
            }
            #expect(passed.values.allSatisfy { $0 <= 4 }, "seed \(seed), round \(round)")
        }
    }
}
