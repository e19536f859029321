import CLibuv
import Glibc
import Synchronization

/// A libuv loop with a thread of its own, as a Swift executor.
///
/// Jobs that arrive on the loop's own thread go to a plain array that is drained after every libuv callback, so that a
/// chain of awaits on the loop costs no system call; jobs from elsewhere wake it through `uv_async_send`.
public final class UVLoop: Loop, @unchecked Sendable {
    private enum Item {
        case job(UnownedJob)
        case action(@Sendable () -> Void)
    }

    private struct Inbox: ~Copyable {
        var items: [Item] = []
        var isSignalled = false
    }

    let handle: UnsafeMutablePointer<uv_loop_t>
    private let wakeup: UnsafeMutablePointer<uv_async_t>
    private let inbox = Mutex(Inbox())
    private let threadIdentifier = Atomic<UInt>(0)
    private var local: [Item] = []
    private var spare: [Item] = []
    private var isDraining = false
    private var isStopping = false
    private var thread: pthread_t?
    private var signals: [UnsafeMutablePointer<uv_signal_t>] = []

    /// A loop that does not run yet.
    public init() {
        handle = .allocate(capacity: 1)
        wakeup = .allocate(capacity: 1)
        uv_loop_init(handle)
        uv_async_init(handle, wakeup) { wakeup in
            guard let data = wakeup?.pointee.data else { return }
            Unmanaged<UVLoop>.fromOpaque(data).takeUnretainedValue().takeInbox()
        }
        wakeup.pointee.data = Unmanaged.passUnretained(self).toOpaque()
    }

    deinit {
        handle.deallocate()
        wakeup.deallocate()
    }

    /// Runs the loop on a new thread. It keeps itself alive until `stop`.
    public func start() {
        var thread = pthread_t()
        let argument = Unmanaged.passRetained(self).toOpaque()
        let status = pthread_create(&thread, nil, loopThread, argument)
        precondition(status == 0, "a thread for the event loop cannot be made: \(status)")
        self.thread = thread
    }

    /// Ends the loop once its handles are closed; from any thread.
    public func stop() {
        execute { [self] in
            isStopping = true
            uv_walk(handle, { handle, _ in if let handle, uv_is_closing(handle) == 0 { closeAny(handle) } }, nil)
        }
    }

    /// Waits for the loop's thread to end.
    public func join() {
        guard let thread else { return }
        pthread_join(thread, nil)
        self.thread = nil
    }

    fileprivate func run() {
        threadIdentifier.store(UInt(pthread_self()), ordering: .sequentiallyConsistent)
        _ = uv_run(handle, UV_RUN_DEFAULT)
        _ = uv_loop_close(handle)
    }

    /// True on the loop's own thread.
    public var isCurrent: Bool { threadIdentifier.load(ordering: .relaxed) == UInt(pthread_self()) }

    /// Monotonic time in microseconds.
    public var now: UInt64 { uv_hrtime() / 1000 }

    // MARK: Executor

    /// Takes a job of the Swift runtime, from any thread.
    public func enqueue(_ job: consuming ExecutorJob) { add(.job(UnownedJob(job))) }

    /// Calls `action` on the loop; from any thread.
    public func execute(_ action: @escaping @Sendable () -> Void) { add(.action(action)) }

    /// This loop as the executor of actors.
    public func asUnownedSerialExecutor() -> UnownedSerialExecutor { UnownedSerialExecutor(ordinary: self) }

    /// Traps unless called on the loop.
    public func checkIsolated() { precondition(isCurrent, "called off its event loop") }

    /// True on the loop.
    public func isIsolatingCurrentContext() -> Bool? { isCurrent }

    private func add(_ item: Item) {
        guard !isCurrent else {
            local.append(item)
            if !isDraining { _ = uv_async_send(wakeup) }
            return
        }
        let wakes = inbox.withLock { inbox in
            inbox.items.append(item)
            defer { inbox.isSignalled = true }
            return !inbox.isSignalled
        }
        if wakes { _ = uv_async_send(wakeup) }
    }

    private func takeInbox() {
        inbox.withLock { inbox in
            local.append(contentsOf: inbox.items)
            inbox.items.removeAll(keepingCapacity: true)
            inbox.isSignalled = false
        }
        drain()
    }

    /// Runs `body`, then all jobs that are ready. Every libuv callback goes through here.
    func callback(_ body: () -> Void) {
        let wasDraining = isDraining
        isDraining = true
        body()
        isDraining = wasDraining
        if !wasDraining { drain() }
    }

    /// Jobs run in batches; after many of them I/O gets its turn first.
    private func drain() {
        guard !isDraining else { return }
        isDraining = true
        var rounds = 0
        while !local.isEmpty, rounds < 256 {
            rounds += 1
            swap(&local, &spare)
            for item in spare {
                switch item {
                case .job(let job):
                    job.runSynchronously(
                        isolatedTo: asUnownedSerialExecutor(), taskExecutor: asUnownedTaskExecutor())
                case .action(let action): action()
                }
            }
            spare.removeAll(keepingCapacity: true)
        }
        isDraining = false
        if !local.isEmpty { _ = uv_async_send(wakeup) }
    }

    // MARK: Timers, signals

    /// Calls `action` once, after at least `microseconds`, in whole milliseconds.
    @discardableResult
    public func schedule(
        afterMicroseconds microseconds: UInt64, _ action: @escaping @Sendable () -> Void
    ) -> any LoopTimer {
        UVTimer(self, milliseconds: (microseconds + 999) / 1000, action)
    }

    /// Calls `action` on the loop whenever the process gets signal `number`; from any thread.
    public func onSignal(_ number: Int32, _ action: @escaping @Sendable () -> Void) {
        execute { [self] in
            let signal = UnsafeMutablePointer<uv_signal_t>.allocate(capacity: 1)
            uv_signal_init(handle, signal)
            signal.pointee.data = Unmanaged.passRetained(SignalAction(self, action)).toOpaque()
            uv_signal_start(
                signal,
                { signal, _ in
                    guard let data = signal?.pointee.data else { return }
                    let box = Unmanaged<SignalAction>.fromOpaque(data).takeUnretainedValue()
                    box.loop.callback(box.action)
                }, number)
            signals.append(signal)
        }
    }
}

private final class SignalAction {
    let loop: UVLoop
    let action: @Sendable () -> Void

    init(_ loop: UVLoop, _ action: @escaping @Sendable () -> Void) {
        self.loop = loop
        self.action = action
    }
}

private func loopThread(_ argument: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
    guard let argument else { return nil }
    Unmanaged<UVLoop>.fromOpaque(argument).takeRetainedValue().run()
    return nil
}

/// Closes a handle that is still open when the loop stops, through its owner if it has one.
private func closeAny(_ handle: UnsafeMutablePointer<uv_handle_t>) {
    switch handle.pointee.type {
    case UV_TCP:
        guard let data = handle.pointee.data else { return uv_close(handle, nil) }
        (Unmanaged<AnyObject>.fromOpaque(data).takeUnretainedValue() as? any Closable)?.closeNow()
    case UV_TIMER:
        guard let data = handle.pointee.data else { return uv_close(handle, nil) }
        (Unmanaged<AnyObject>.fromOpaque(data).takeUnretainedValue() as? any Closable)?.closeNow()
    default:
        uv_close(handle, nil)
    }
}

/// An owner of a libuv handle that can let go of it at once.
protocol Closable: AnyObject {
    func closeNow()
}

/// One-shot timer; the handle lives until libuv has closed it.
final class UVTimer: LoopTimer, Closable, @unchecked Sendable {
    private var handle: UnsafeMutablePointer<uv_timer_t>?
    private let loop: UVLoop
    private var action: (@Sendable () -> Void)?

    init(_ loop: UVLoop, milliseconds: UInt64, _ action: @escaping @Sendable () -> Void) {
        self.loop = loop
        self.action = action
        let handle = UnsafeMutablePointer<uv_timer_t>.allocate(capacity: 1)
        self.handle = handle
        uv_timer_init(loop.handle, handle)
        handle.pointee.data = Unmanaged.passRetained(self).toOpaque()
        uv_update_time(loop.handle)
        uv_timer_start(
            handle,
            { handle in
                guard let data = handle?.pointee.data else { return }
                let timer = Unmanaged<UVTimer>.fromOpaque(data).takeUnretainedValue()
                timer.loop.callback { timer.fire() }
            }, milliseconds, 0)
    }

    private func fire() {
        let action = self.action
        cancel()
        action?()
    }

    func cancel() { closeNow() }

    func closeNow() {
        action = nil
        guard let handle else { return }
        self.handle = nil
        handle.withMemoryRebound(to: uv_handle_t.self, capacity: 1) { handle in
            uv_close(handle) { handle in
                guard let data = handle?.pointee.data else { return }
                Unmanaged<UVTimer>.fromOpaque(data).release()
                handle?.deallocate()
            }
        }
    }
}
