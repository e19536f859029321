import EventLoop

/// What a stream of responses may be filled with without changing its meaning, and when it must be.
public struct StreamFiller: Sendable, Equatable {
    /// The bytes, such as an SSE comment.
    public var bytes: [UInt8]
    /// Silence in microseconds after which they are sent; 0 for never.
    public var afterMicroseconds: UInt64

    /// A filler of its parts.
    public init(_ bytes: [UInt8], afterMicroseconds: UInt64) {
        self.bytes = bytes
        self.afterMicroseconds = afterMicroseconds
    }

    /// The comment of an event stream (WHATWG HTML, 9.2.6), which clients drop.
    public static func eventStream(afterMicroseconds: UInt64) -> StreamFiller {
        StreamFiller(Array(": ping\n\n".utf8), afterMicroseconds: afterMicroseconds)
    }
}

/// How long a stream has been silent, in microseconds.
package struct SilenceClock: Sendable {
    /// The longest silence.
    package let limit: UInt64
    private var last: UInt64

    /// A clock of a stream that was heard at `now`.
    package init(limit: UInt64, now: UInt64) {
        self.limit = limit
        last = now
    }

    /// The stream was heard.
    package mutating func heard(at now: UInt64) { last = now }

    /// What is left until the silence is too long; 0 when it is.
    package func left(at now: UInt64) -> UInt64 {
        let silent = now > last ? now - last : 0
        return silent < limit ? limit - silent : 0
    }
}

/// When to write to a client that has ended its side of the connection. It may read on, or be gone: only what is written to
/// one that is gone is answered with a reset, and what follows then fails. So writes come in pairs.
package struct DepartureProbes: Sendable {
    private var left: ArraySlice<UInt64>

    /// Probes of a client whose response has begun, or not. One that waits for it is left in peace for a while: what can be
    /// written before a response (`100 Continue`) is a surprise to simple clients.
    package init(hasBegun: Bool) {
        left = hasBegun ? [0, 500_000, 5_000_000] : [5_000_000, 1_000_000, 30_000_000, 1_000_000]
    }

    /// Microseconds until the next; nil after the last.
    package mutating func next() -> UInt64? { left.popFirst() }
}

/// Runs the timer of a stream's silence. Confined to its loop.
final class StreamSilence: Sendable {
    private struct State {
        var clock: SilenceClock
        var timer: (any LoopTimer)?
    }

    private let loop: any Loop
    private let fill: @Sendable () -> Void
    private let state: LoopBound<State>

    /// Calls `fill` after every silence of `limit` microseconds until it is cancelled.
    init(limit: UInt64, loop: any Loop, _ fill: @escaping @Sendable () -> Void) {
        self.loop = loop
        self.fill = fill
        state = LoopBound(State(clock: SilenceClock(limit: limit, now: loop.now)), on: loop)
        schedule(limit)
    }

    func heard() { state.value.clock.heard(at: loop.now) }

    func cancel() {
        state.timer?.cancel()
        state.timer = nil
    }

    private func schedule(_ microseconds: UInt64) {
        state.timer = loop.schedule(afterMicroseconds: microseconds) { [weak self] in self?.expired() }
    }

    private func expired() {
        guard state.timer != nil else { return }
        var left = state.clock.left(at: loop.now)
        if left == 0 {
            fill()
            heard()
            left = state.clock.limit
        }
        if state.timer != nil { schedule(left) }
    }
}
