import EventLoop
import Glibc

/// Waits on a loop to the microsecond, although its timers count milliseconds.
public enum PreciseSleep {
    /// The loop's thread sleeps for the last part of a wait: a timer may be late by two milliseconds.
    private static let blockedMicroseconds: UInt64 = 2200

    /// Returns when `loop.now` is `deadline`, microseconds. The loop does other work meanwhile, but for the last
    /// two milliseconds.
    public static func sleep(until deadline: UInt64, on loop: any Loop) async {
        let now = loop.now
        guard deadline > now else { return }
        guard loop is UVLoop else { return await pause(deadline - now, on: loop) }
        if deadline - now > 2 * blockedMicroseconds { await pause(deadline - now - blockedMicroseconds, on: loop) }
        var time = timespec(tv_sec: Int(deadline / 1_000_000), tv_nsec: Int(deadline % 1_000_000) * 1000)
        while clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, nil) == EINTR {}
    }

    private static func pause(_ microseconds: UInt64, on loop: any Loop) async {
        await withCheckedContinuation { continuation in
            loop.schedule(afterMicroseconds: microseconds) { continuation.resume() }
        }
    }
}
