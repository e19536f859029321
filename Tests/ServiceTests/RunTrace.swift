import EventLoop
import EventLoopTesting
import Serving
import WireProtocol

/// What a run on a network in memory did, a line each, with the time and the network's digest of all before it. Confined
/// to the thread that drives the network.
final class RunTrace: @unchecked Sendable {
    private let network: MemoryNetwork
    private(set) var lines: [String] = []

    init(_ network: MemoryNetwork) { self.network = network }

    func note(_ text: String) { lines.append("\(network.now) µs, \(String(network.digest, radix: 16)): \(text)") }

    /// Counters but those of the machine's own time.
    func note(_ counters: [String: Int64]) {
        let own = counters.filter { !$0.key.hasSuffix("_nanoseconds") }.sorted { $0.key < $1.key }
        note(own.map { "\($0.key) \($0.value)" }.joined(separator: ", "))
    }

    /// Tokens with the bits of their logprobs.
    static func text(_ tokens: [Token]) -> String {
        tokens.map { "\($0.id)/\(String($0.logprob.bitPattern, radix: 16))" }.joined(separator: " ")
    }
}
