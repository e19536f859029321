import EventLoop
import LoadTesting

/// Sends one request and measures its answer, as a client sees it.
struct RequestMeter {
    let loop: any Loop
    let transport: any CompletionTransport
    /// Where times count from, as the loop counts.
    let epoch: UInt64
    let ignoresEnd: Bool
    let timeoutMicroseconds: UInt64

    /// Microseconds since the epoch.
    var now: UInt64 { loop.now - epoch }

    /// Measures `request`, which was due at `due` and is given up after `cancelAfter` tokens. `onOutput` hears of tokens
    /// as they come.
    func measure(
        _ request: PlannedRequest, index: Int, due: UInt64, cancelAfter: Int?, onOutput: (Int) -> Void
    ) async -> RequestRecord {
        var record = RequestRecord(index: index, due: due, sent: now, inputTokens: request.inputTokens)
        var tokens = 0
        let call = CompletionCall(
            request: request, ignoresEnd: ignoresEnd, timeoutMicroseconds: timeoutMicroseconds)
        do throws(CompletionFailure) {
            let end = try await transport.complete(call) { count in
                record.add(tokens: count, at: now)
                tokens += count
                onOutput(count)
                return cancelAfter.map { tokens < $0 } ?? true
            }
            record.ended = now
            if end.wasCancelled {
                record.outcome = .cancelled
            } else {
                try settle(end, request, &record)
            }
        } catch {
            record.ended = now
            record.outcome = Task.isCancelled ? .cutOff : .failed(error)
        }
        return record
    }

    /// Takes the server's counts, which are right where pieces were merged; an answer shorter than asked for is an
    /// error when its end tokens were to be ignored.
    private func settle(
        _ end: CompletionEnd, _ request: PlannedRequest, _ record: inout RequestRecord
    ) throws(CompletionFailure) {
        record.inputTokens = end.inputTokens ?? record.inputTokens
        record.cachedTokens = end.cachedTokens
        if let total = end.outputTokens, let last = record.outputCounts.indices.last {
            record.outputCounts[last] += total - record.outputTokens
        }
        guard !record.outputTimes.isEmpty else { throw CompletionFailure("empty answer", "it has no tokens") }
        if ignoresEnd, let total = end.outputTokens, total != request.outputTokens {
            throw CompletionFailure("wrong length", "\(total) tokens came, \(request.outputTokens) were asked for")
        }
    }
}
