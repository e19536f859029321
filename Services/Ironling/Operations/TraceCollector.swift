import Foundation
import Observability
import ServiceSupport

/// Fetches spans from services and brings their clocks together. Confined to its loop.
struct TraceCollector {
    /// Clocks that differ by no more than this, beyond what the network explains, are the same, nanoseconds.
    private static let sameClock: Int64 = 1_000_000
    /// A trace nobody has: its answer is small, and tells the clock.
    private static let probe = "id=00000000000000000000000000000001"

    private let client: OperationsClient
    private let offsets: [Int64]

    /// A collector that knows by how much each service's clock is ahead of this process's.
    init(_ client: OperationsClient) async throws {
        self.client = client
        var best: [(uncertainty: Int64, offset: Int64)] = []
        for _ in 0..<5 {
            for (index, answer) in try await client.get("/trace", query: Self.probe).enumerated() {
                let clock = try Self.report(answer).clock
                let uncertainty = (answer.answered - answer.asked) / 2
                let sample = (uncertainty, clock - (answer.asked + uncertainty))
                if index == best.count { best.append(sample) } else if sample.0 < best[index].0 { best[index] = sample }
            }
        }
        offsets = best.map { abs($0.offset) <= $0.uncertainty + Self.sameClock ? 0 : $0.offset }
    }

    /// The spans that `query` of `/trace` asks for, in the time of this process's clock.
    func reports(_ query: String, timeoutMicroseconds: UInt64 = 10_000_000) async throws -> [SpanReport] {
        let answers = try await client.get("/trace", query: query, timeoutMicroseconds: timeoutMicroseconds)
        return try zip(answers, offsets).map { answer, offset in
            var report = try Self.report(answer)
            for index in report.spans.indices {
                report.spans[index].start -= offset
                report.spans[index].end -= offset
            }
            return report
        }
    }

    /// Everything about one trace: its own spans, and those of the steps it shared with others.
    func reports(of trace: TraceContext) async throws -> [SpanReport] {
        let own = try await reports("id=\(trace.id)")
        let leads = Set(own.flatMap(\.spans).map(\.lead).filter { !$0.isNone }.map(\.id)).subtracting([trace.id])
        guard !leads.isEmpty else { return own }
        let others = leads.sorted().prefix(SpanRecorder.Query.maximumTraces - 1)
        return try await reports("id=" + ([trace.id] + others).joined(separator: ","))
    }

    private static func report(_ answer: OperationsClient.Answer) throws -> SpanReport {
        guard let report = try? SpanReport(json: answer.body) else {
            throw StartError("\(answer.address) answers /trace with something else than spans")
        }
        return report
    }
}
