/// Keeps requests away from an instance that fails: closed → (failures in a row) → open → (time) → half open, where one
/// request at a time probes → (successes) → closed.
public struct CircuitBreaker: Sendable, Equatable {
    /// When it opens, for how long, and when it closes.
    public struct Limits: Sendable, Equatable {
        /// Failures in a row that open it.
        public var failures = 3
        /// How long it stays open, in microseconds.
        public var openMicroseconds: UInt64 = 5_000_000
        /// Successful probes that close it.
        public var successes = 1

        /// The defaults.
        public init() {}
    }

    /// Where it stands.
    public enum State: Sendable, Equatable {
        /// Requests pass.
        case closed(failures: Int)
        /// Nothing passes until the time comes.
        case open(until: UInt64)
        /// One probe at a time passes.
        case halfOpen(successes: Int, isProbing: Bool)
    }

    /// The limits in force.
    public let limits: Limits
    /// Where it stands.
    public private(set) var state = State.closed(failures: 0)
    /// How often it opened.
    public private(set) var openings = 0

    /// A closed breaker.
    public init(limits: Limits = Limits()) { self.limits = limits }

    /// When it lets a probe pass at the earliest; nil when it is not open.
    public var opensUntil: UInt64? { if case .open(let until) = state { until } else { nil } }

    /// True when a request may pass now.
    public func lets(now: UInt64) -> Bool {
        switch state {
        case .closed: true
        case .open(let until): now >= until
        case .halfOpen(_, let isProbing): !isProbing
        }
    }

    /// A request was sent.
    public mutating func sent(now: UInt64) {
        switch state {
        case .closed: break
        case .open(let until): if now >= until { state = .halfOpen(successes: 0, isProbing: true) }
        case .halfOpen(let successes, _): state = .halfOpen(successes: successes, isProbing: true)
        }
    }

    /// A request went well.
    public mutating func succeeded() {
        switch state {
        case .closed: state = .closed(failures: 0)
        case .open: break
        case .halfOpen(let successes, _):
            state =
                successes + 1 >= limits.successes
                ? .closed(failures: 0) : .halfOpen(successes: successes + 1, isProbing: false)
        }
    }

    /// A request was taken back; nothing is known of the instance.
    public mutating func withdrawn() {
        if case .halfOpen(let successes, _) = state { state = .halfOpen(successes: successes, isProbing: false) }
    }

    /// A request failed by the instance's fault.
    public mutating func failed(now: UInt64) {
        switch state {
        case .closed(let failures) where failures + 1 < limits.failures: state = .closed(failures: failures + 1)
        case .open: break
        case .closed, .halfOpen:
            let (until, overflow) = now.addingReportingOverflow(limits.openMicroseconds)
            state = .open(until: overflow ? .max : until)
            openings += 1
        }
    }
}
