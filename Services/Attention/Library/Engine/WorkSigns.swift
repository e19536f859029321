import EventLoop
import RPC
import WireProtocol

/// Tells the caller of a stream that wants to know how much work the instance has done: at the start, and once a second
/// while no token is sent. What the engine does not answer for is not told. Confined to the control loop.
final class WorkSigns: Sendable {
    private struct State {
        var heartbeat: Heartbeat?
        var isAsking = false
        var hadToken = false
    }

    static let intervalMicroseconds: UInt64 = 1_000_000

    private let loop: any Loop
    private let call: ServerCall
    private let work: @Sendable () async -> UInt64?
    private let state: LoopBound<State>

    /// - work: what was done so far; nil when the request is not there.
    init(_ call: ServerCall, loop: any Loop, work: @escaping @Sendable () async -> UInt64?) {
        self.call = call
        self.loop = loop
        state = LoopBound(State(), on: loop)
        self.work = work
    }

    func begin() {
        state.heartbeat = Heartbeat(loop: loop, microseconds: Self.intervalMicroseconds) { [weak self] in self?.beat() }
        tell()
    }

    /// A token is as good a sign.
    func token() { state.hadToken = true }

    func end() {
        state.heartbeat?.end()
        state.heartbeat = nil
    }

    private func beat() {
        if !state.hadToken { tell() }
        state.hadToken = false
    }

    /// One at a time: a caller that takes nothing needs no further sign.
    private func tell() {
        guard !state.isAsking else { return }
        state.isAsking = true
        Task.immediate(executorPreference: loop) {
            let done = await work()
            if let done, state.heartbeat != nil {
                // Whoever is gone has ended the call, and the stream hears of that.
                try? await call.send(RPCPayload(metadata: TokensPart.sign(work: done).encoded()))
            }
            state.isAsking = false
        }
    }
}
