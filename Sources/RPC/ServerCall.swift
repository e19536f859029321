import EventLoop
import Observability
import WireProtocol

/// One call on the server's side. Confined to its loop, which everything that changes it asserts; a box for its variables
/// would be one more allocation for each call.
public final class ServerCall: @unchecked Sendable {
    /// What is asked for.
    public let method: Method
    /// Encoded request.
    public let metadata: [UInt8]
    /// Raw tensors of the request.
    public let body: AlignedBuffer?
    /// Who asks.
    public let peer: Hello
    /// Microseconds the caller waits, from the moment the call came; 0 is no limit.
    public let deadlineMicroseconds: UInt64
    /// The trace the caller's request belongs to.
    public let trace: TraceContext

    private let requestID: UInt64
    private let loop: any Loop
    private let limits: RPCLimits
    private let begun: UInt64
    private weak var connection: Connection?
    private var credit: Int
    private let waiters = Waiters()
    private var waitingSince: UInt64?
    private(set) var isOver = false
    private(set) var isStream = false

    init(_ message: Message, peer: Hello, connection: Connection, loop: any Loop, limits: RPCLimits) {
        method = message.header.method
        metadata = message.metadata
        body = message.body
        requestID = message.header.requestID
        deadlineMicroseconds = message.header.deadlineMicroseconds
        trace = TraceContext(
            high: message.header.traceHigh, low: message.header.traceLow,
            isSampled: message.header.flags.contains(.sampled))
        self.peer = peer
        self.connection = connection
        self.loop = loop
        self.limits = limits
        begun = loop.now
        credit = min(Int(peer.streamCredit), limits.maximumCredit)
    }

    /// Sends an item of a streamed answer; waits while the caller has granted no bytes, and throws when it does not for
    /// too long, is gone or would refuse the item.
    public func send(_ item: RPCPayload) async throws(RPCError) {
        loop.assertIsolated()
        isStream = true
        if credit <= 0, !isOver {
            waitingSince = waitingSince ?? loop.now
            await waiters.wait { credit <= 0 && !isOver }
        }
        guard !isOver, let connection else { throw RPCError(.cancelled, "the caller is gone") }
        if let refusal = connection.refusal(metadata: item.metadata, body: item.body) { throw refusal }
        credit -= item.byteCount
        connection.send(.item, requestID: requestID, metadata: item.metadata, body: item.body)
    }

    func grant(_ bytes: UInt32) {
        loop.assertIsolated()
        credit = min(credit + Int(bytes), limits.maximumCredit)
        if credit > 0 { waitingSince = nil }
        waiters.wake()
    }

    func end() {
        loop.assertIsolated()
        isOver = true
        waiters.wake()
    }

    /// Why the call must be ended now: its deadline, or a caller that takes nothing of its stream.
    func expiry(now: UInt64) -> RPCError? {
        if deadlineMicroseconds > 0, now - begun > deadlineMicroseconds {
            return RPCError(.deadlineExceeded, "the call was not done within its \(deadlineMicroseconds / 1000) ms")
        }
        if let waitingSince, now - waitingSince > limits.consumerMicroseconds {
            let limit = limits.consumerMicroseconds / 1000
            return RPCError(.deadlineExceeded, "the caller has taken nothing of its stream for \(limit) ms")
        }
        return nil
    }
}
