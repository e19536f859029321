import LoadTesting
import Scheduling
import StatePools

/// A request in flight, as client, gateway and slices see it.
struct SimulatedRequest {
    let inputTokens: Int
    let outputTokens: Int
    /// Tokens after which the client gives it up.
    let cancelAfter: Int?
    var record: RequestRecord
    var placement: Placement?
    /// Tokens that were streamed.
    var generated = 0
    /// Keeps its memory on the decode slice while its state is on the way.
    var incoming: Hold?
    /// Keeps its memory on the prefill slice until its state has left.
    var outgoing: Hold?

    /// Takes a token; says how many there are, and how the request ends if this was the last.
    mutating func take(at time: UInt64) -> (generated: Int, attempt: Int?, outcome: Outcome?) {
        generated += 1
        record.add(tokens: 1, at: time)
        if generated >= outputTokens { return (generated, placement?.attempt, .completed) }
        return (generated, placement?.attempt, generated == cancelAfter ? .cancelled : nil)
    }
}
