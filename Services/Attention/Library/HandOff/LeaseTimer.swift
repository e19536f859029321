import EventLoop

/// Calls `onExpired` once when nobody has extended the lease for its length. Confined to its loop.
final class LeaseTimer: @unchecked Sendable {
    private let loop: any Loop
    private let microseconds: UInt64
    private let onExpired: @Sendable () -> Void
    private var deadline: UInt64
    private var timer: (any LoopTimer)?
    /// True once it ran out.
    private(set) var isExpired = false

    init(loop: any Loop, microseconds: UInt64, onExpired: @escaping @Sendable () -> Void) {
        self.loop = loop
        self.microseconds = microseconds
        self.onExpired = onExpired
        deadline = loop.now + microseconds
        schedule()
    }

    /// The peer gave a sign of life.
    func extend() { deadline = max(deadline, loop.now + microseconds) }

    /// The lease is over in order.
    func end() {
        timer?.cancel()
        timer = nil
    }

    private func schedule() {
        let now = loop.now
        timer = loop.schedule(afterMicroseconds: deadline > now ? deadline - now : 1) { [weak self] in
            self?.fired()
        }
    }

    private func fired() {
        guard loop.now >= deadline else { return schedule() }
        isExpired = true
        onExpired()
    }
}

/// Calls `onBeat` at an interval until it is ended. Confined to its loop.
final class Heartbeat: @unchecked Sendable {
    private let loop: any Loop
    private let microseconds: UInt64
    private let onBeat: @Sendable () -> Void
    private var timer: (any LoopTimer)?

    init(loop: any Loop, microseconds: UInt64, onBeat: @escaping @Sendable () -> Void) {
        self.loop = loop
        self.microseconds = microseconds
        self.onBeat = onBeat
        schedule()
    }

    func end() {
        timer?.cancel()
        timer = nil
    }

    private func schedule() {
        timer = loop.schedule(afterMicroseconds: microseconds) { [weak self] in
            guard let self else { return }
            onBeat()
            schedule()
        }
    }
}
