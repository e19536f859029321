/// The way of state from one slice to another: bytes leave in the order in which they are ready, at one rate, and are
/// there a fixed time later. Times are nanoseconds.
public struct TransferLink: Sendable, Equatable {
    /// Bytes per second.
    public let bytesPerSecond: Double
    /// Nanoseconds from the last byte's leaving to its being there.
    public let latencyNanoseconds: UInt64
    /// Bytes of recurrent state per request.
    public let bytesPerRequest: Int
    /// Bytes of latents per token.
    public let bytesPerToken: Int
    /// Bytes that were sent.
    public private(set) var sentBytes = 0
    /// Nanoseconds in which the link was busy.
    public private(set) var busyNanoseconds: UInt64 = 0
    private var freeAt: UInt64 = 0

    /// A link that nothing has passed yet.
    public init(bytesPerSecond: Double, latencyNanoseconds: UInt64, bytesPerRequest: Int, bytesPerToken: Int) {
        self.bytesPerSecond = max(1, bytesPerSecond)
        self.latencyNanoseconds = latencyNanoseconds
        self.bytesPerRequest = max(0, bytesPerRequest)
        self.bytesPerToken = max(0, bytesPerToken)
    }

    /// The same link where time runs `factor` times faster.
    public func faster(by factor: Double) -> TransferLink {
        TransferLink(
            bytesPerSecond: bytesPerSecond * factor,
            latencyNanoseconds: UInt64(Double(latencyNanoseconds) / max(1e-6, factor)),
            bytesPerRequest: bytesPerRequest, bytesPerToken: bytesPerToken)
    }

    /// Sends what a step computed of a prompt, which became ready at `time`: the latents of its `tokens`, and the
    /// recurrent states when the prompt is complete. Returns when all of it is there.
    public mutating func send(tokens: Int, completesPrompt: Bool, at time: UInt64) -> UInt64 {
        let bytes = tokens * bytesPerToken + (completesPrompt ? bytesPerRequest : 0)
        let duration = UInt64(Double(bytes) / bytesPerSecond * 1e9)
        let start = max(time, freeAt)
        sentBytes += bytes
        busyNanoseconds += duration
        freeAt = start + duration
        return freeAt + latencyNanoseconds
    }
}
