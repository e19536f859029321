/// How many requests may be in flight, growing from 1 over the ramp.
public struct ConcurrencyLimit: Sendable, Equatable {
    /// The most.
    public var maximum: Int
    /// Microseconds until the most is allowed.
    public var rampMicroseconds: UInt64

    /// A limit.
    public init(_ maximum: Int, rampMicroseconds: UInt64 = 0) {
        self.maximum = maximum
        self.rampMicroseconds = rampMicroseconds
    }

    /// How many are allowed at `time`.
    func allowed(at time: UInt64) -> Int {
        guard time < rampMicroseconds else { return maximum }
        return min(maximum, 1 + Int(Double(maximum - 1) * Double(time) / Double(rampMicroseconds)))
    }

    /// When one more than `count` are allowed.
    func timeAllowing(moreThan count: Int) -> UInt64? {
        guard count < maximum, maximum > 1 else { return nil }
        return UInt64((Double(count) / Double(maximum - 1) * Double(rampMicroseconds)).rounded(.up))
    }
}

/// Decides which request is sent when: in order, none before it is due, never more in flight than allowed. Closed loop
/// when everything is due at once, open loop otherwise. Times are microseconds from the start.
public struct LoadController: Sendable {
    /// What to do now.
    public struct Step: Sendable, Equatable {
        /// Requests to send, by index.
        public var send: [Int] = []
        /// When to ask again, if nothing ends before.
        public var wakeAt: UInt64?

        /// A step.
        public init(send: [Int] = [], wakeAt: UInt64? = nil) {
            self.send = send
            self.wakeAt = wakeAt
        }
    }

    /// When each request is due.
    public let due: [UInt64]
    private let limit: ConcurrencyLimit
    private var isStopped = false
    /// The next request to send.
    public private(set) var next = 0
    /// Requests sent that have not ended.
    public private(set) var inFlight = 0

    /// A controller of requests that are due at `due`, in order.
    public init(due: [UInt64], limit: ConcurrencyLimit) {
        self.due = due
        self.limit = limit
    }

    /// True when nothing is in flight and nothing will be sent.
    public var isDone: Bool { inFlight == 0 && (isStopped || next == due.count) }

    /// What to do at `time`.
    public mutating func advance(to time: UInt64) -> Step {
        var step = Step()
        guard !isStopped else { return step }
        let allowed = limit.allowed(at: time)
        while next < due.count, due[next] <= time, inFlight < allowed {
            step.send.append(next)
            next += 1
            inFlight += 1
        }
        guard next < due.count else { return step }
        if due[next] > time, inFlight < allowed {
            step.wakeAt = due[next]
        } else if allowed < limit.maximum {
            step.wakeAt = limit.timeAllowing(moreThan: inFlight).map { max($0, time + 1, due[next]) }
        }
        return step
    }

    /// A request that was sent has ended.
    public mutating func finished() { inFlight -= 1 }

    /// Sends nothing more.
    public mutating func stop() { isStopped = true }
}
