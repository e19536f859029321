import EventLoop

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
