/// How long a stream has made no headway: no token has come, and the instance has done no work. A value; times are
/// microseconds.
///
/// It runs from the first sign that the instance gives, so that one that gives none is left alone. A prompt may take as long
/// as it does, and a request may wait for others, as long as the instance works.
package struct ProgressClock: Sendable, Equatable {
    /// How long a stream may stand still.
    package let limitMicroseconds: UInt64
    private var since: UInt64?
    private var work: UInt64?

    /// A clock that does not run yet.
    package init(limitMicroseconds: UInt64) { self.limitMicroseconds = limitMicroseconds }

    /// A token came.
    package mutating func token(now: UInt64) { if since != nil { since = now } }

    /// The instance has done so much work in all.
    package mutating func sign(work: UInt64, now: UInt64) {
        guard work != self.work else { return }
        self.work = work
        since = now
    }

    /// True when the stream should be taken elsewhere.
    package func isStalled(now: UInt64) -> Bool {
        guard let since, now > since else { return false }
        return now - since >= limitMicroseconds
    }
}
