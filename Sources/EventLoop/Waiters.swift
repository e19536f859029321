/// Tasks that wait for a condition on one loop. Confined to it.
///
/// Suspending may let other jobs of the loop run first, so the condition is asked again when the continuation is there:
/// a wake-up that comes between the two is not lost.
package final class Waiters: @unchecked Sendable {
    private var waiting: [CheckedContinuation<Void, Never>] = []

    package init() {}

    /// Returns when `condition` is false, asking again after every `wake`.
    package func wait(while condition: () -> Bool) async {
        while condition() {
            await withCheckedContinuation { continuation in
                if condition() { waiting.append(continuation) } else { continuation.resume() }
            }
        }
    }

    /// The same, for so long at most.
    package func wait(
        _ loop: any Loop, atMostMicroseconds limit: UInt64, while condition: () -> Bool
    ) async {
        let time = TimeUp()
        let timer = loop.schedule(afterMicroseconds: limit) { [self] in
            time.isUp = true
            wake()
        }
        await wait { !time.isUp && condition() }
        timer.cancel()
    }

    /// Lets all that wait look again.
    package func wake() {
        let woken = waiting
        waiting = []
        for continuation in woken { continuation.resume() }
    }

    private final class TimeUp: @unchecked Sendable {
        var isUp = false
    }
}
