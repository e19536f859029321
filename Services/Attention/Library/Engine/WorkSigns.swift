import EventLoop
import RPC
import WireProtocol

/// Tells the caller of a stream that wants to know how much work the instance has done: at the start, and once a second
/// while no token is sent. What the engine does not answer for is not told. Confined to the control loop.
final class WorkSigns: @unchecked Sendable {
    static let intervalMicroseconds: UInt64 = 1_000_000

    private let loop: any Loop
    private let call: ServerCall
    private let work: () async -> UInt64?
    private var heartbeat: Heartbeat?
    private var isAsking = false
    private var hadToken = false

    /// - work: what was done so far; nil when the request is not there.
    init(_ call: ServerCall, loop: any Loop, work: @escaping () async -> UInt64?) {
        self.call = call
        self.loop = loop
        self.work = work
    }

    func begin() {
        heartbeat = Heartbeat(loop: loop, microseconds: Self.intervalMicroseconds) { [weak self] in self?.beat() }
        tell()
    }

    /// A token is as good a sign.
    func token() { hadToken = true }

    func end() {
        heartbeat?.end()
        heartbeat = nil
    }

    private func beat() {
        if !hadToken { tell() }
        hadToken = false
    }

    /// One at a time: a caller that takes nothing needs no further sign.
    private func tell() {
        guard !isAsking else { return }
        isAsking = true
        Task.immediate(executorPreference: loop) {
            let done = await work()
            if let done, heartbeat != nil {
                // Whoever is gone has ended the call, and the stream hears of that.
                try? await call.send(RPCPayload(metadata: TokensPart.sign(work: done).encoded()))
            }
            isAsking = false
        }
    }
}
