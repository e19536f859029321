import EventLoop

/// Calls `onBeat` at an interval until it is ended. Confined to its loop.
final class Heartbeat: Sendable {
    private let loop: any Loop
    private let microseconds: UInt64
    private let onBeat: @Sendable () -> Void
    private let timer: LoopBound<(any LoopTimer)?>

    init(loop: any Loop, microseconds: UInt64, onBeat: @escaping @Sendable () -> Void) {
        self.loop = loop
        timer = LoopBound(nil, on: loop)
        self.microseconds = microseconds
        self.onBeat = onBeat
        schedule()
    }

    func end() {
        timer.value?.cancel()
        timer.value = nil
    }

    private func schedule() {
        timer.value = loop.schedule(afterMicroseconds: microseconds) { [weak self] in
            guard let self else { return }
            onBeat()
            schedule()
        }
    }
}
