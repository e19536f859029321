import Synchronization

/// Tasks that wait for a condition on one loop.
///
/// Suspending may let other jobs of the loop run first, so the condition is asked again when the continuation is there:
/// a wake-up that comes between the two is not lost.
package final class Waiters: Sendable {
    private let waiting = Mutex<[CheckedContinuation<Void, Never>]>([])

    package init() {}

    /// Returns when `condition` is false, asking again after every `wake`.
    package func wait(while condition: () -> Bool) async {
        while condition() {
            await withCheckedContinuation { continuation in
                if condition() { waiting.withLock { $0.append(continuation) } } else { continuation.resume() }
            }
        }
    }

    /// The same, for so long at most.
    package func wait(
        _ loop: any Loop, atMostMicroseconds limit: UInt64, while condition: () -> Bool
    ) async {
        let isUp = LoopBound(false, on: loop)
        let timer = loop.schedule(afterMicroseconds: limit) { [self] in
            isUp.value = true
            wake()
        }
        await wait { !isUp.value && condition() }
        timer.cancel()
    }

    /// Lets all that wait look again.
    package func wake() {
        let woken = waiting.withLock { waiting in
            defer { waiting = [] }
            return waiting
        }
        for continuation in woken { continuation.resume() }
    }
}
