import CLibuv
import Glibc
import Synchronization

/// A libuv loop with a thread of its own, as a Swift executor.
///
/// Jobs that arrive on the loop's own thread go to a plain array that is drained after every libuv callback, so that a
/// chain of awaits on the loop costs no system call; jobs from elsewhere wake it through `uv_async_send`.
/// They come in under a mutex; all else its own thread touches, which every callback asserts.
public final class UVLoop: Loop, @unchecked Sendable {
    private enum Item {
        case job(UnownedJob)
        case action(@Sendable () -> Void)
    }

    private struct Inbox: ~Copyable {
        var items: [Item] = []
        var isSignalled = false
        /// The loop's thread has ended; nothing can run any more.
        var isOver = false
    }

    let handle: UnsafeMutablePointer<uv_loop_t>
    private let wakeup: UnsafeMutablePointer<uv_async_t>
    private let inbox = Mutex(Inbox())
    private let threadIdentifier = Atomic<UInt>(0)
    private var local: [Item] = []
    private var spare: [Item] = []
    private var isDraining = false
    /// Set by `stop`; from then on nothing new is opened.
    private(set) var isStopping = false
    private var thread: pthread_t?
    /// Sockets that are bound and not yet listened on, by `host:port`.
    let reservations = Mutex<[String: [Int32]]>([:])
    /// What every stream of this loop reads into; a read is over before the next one begins.
    let readBuffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 64 * 1024, alignment: 64)

    /// A loop that does not run yet. Writing to a connection whose peer is gone is an error on that connection, so
    /// the process stops dying of SIGPIPE.
    public init() {
        signal(SIGPIPE, SIG_IGN)
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
        if let thread { pthread_detach(thread) }
        if !inbox.withLock({ $0.isOver }) { closeLoop() }
        for socket in reservations.withLock({ $0.values.flatMap { $0 } }) { close(socket) }
        readBuffer.deallocate()
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

    /// Closes everything that is open on the loop and ends it once that is closed and no job is ready; from any
    /// thread. Afterwards connections and timers are refused, and what is still sent to the loop is dropped: stop it
    /// last.
    public func stop() {
        execute { [self] in
            guard !isStopping else { return }
            isStopping = true
            uv_unref(UnsafeMutableRawPointer(wakeup).assumingMemoryBound(to: uv_handle_t.self))
            closeHandles()
        }
    }

    /// Waits for the loop's thread to end. Not on the loop.
    public func join() {
        guard let thread else { return }
        pthread_join(thread, nil)
        self.thread = nil
    }

    fileprivate func run() {
        threadIdentifier.store(UInt(pthread_self()), ordering: .sequentiallyConsistent)
        _ = uv_run(handle, UV_RUN_DEFAULT)
        repeat {
            takeInbox()
            closeHandles()
            _ = uv_run(handle, UV_RUN_DEFAULT)
        } while !endIfIdle()
        closeLoop()
        threadIdentifier.store(0, ordering: .sequentiallyConsistent)
    }

    private func endIfIdle() -> Bool {
        inbox.withLock { inbox in
            inbox.isOver = inbox.items.isEmpty && local.isEmpty
            return inbox.isOver
        }
    }

    /// Closes all handles but the wakeup, through their owners.
    private func closeHandles() {
        uv_walk(
            handle,
            { handle, wakeup in
                guard let handle, UnsafeMutableRawPointer(handle) != wakeup, uv_is_closing(handle) == 0 else { return }
                closeAny(handle)
            }, wakeup)
    }

    private func closeLoop() {
        wakeup.withMemoryRebound(to: uv_handle_t.self, capacity: 1) { uv_close($0, nil) }
        _ = uv_run(handle, UV_RUN_DEFAULT)
        _ = uv_loop_close(handle)
    }

    /// True on the loop's own thread.
    public var isCurrent: Bool { threadIdentifier.load(ordering: .relaxed) == UInt(pthread_self()) }

    /// Monotonic time in microseconds.
    public var now: UInt64 { uv_hrtime() / 1000 }

    /// A number from the system's generator.
    public func random(in range: ClosedRange<UInt64>) -> UInt64 { UInt64.random(in: range) }

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
        inbox.withLock { inbox in
            guard !inbox.isOver else { return }
            inbox.items.append(item)
            if !inbox.isSignalled { _ = uv_async_send(wakeup) }
            inbox.isSignalled = true
        }
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
        assertIsolated()
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

    /// Calls `action` once, `microseconds` from now, in whole milliseconds rounded up; never when the loop is stopping.
    @discardableResult
    public func schedule(
        afterMicroseconds microseconds: UInt64, _ action: @escaping @Sendable () -> Void
    ) -> any LoopTimer {
        UVTimer(self, milliseconds: microseconds / 1000 + (microseconds % 1000 == 0 ? 0 : 1), action)
    }

    /// Calls `action` on the loop whenever the process gets signal `number`, until the loop stops; from any thread.
    public func onSignal(_ number: Int32, _ action: @escaping @Sendable () -> Void) {
        execute { [self] in
            if !isStopping { UVSignal(self, action).start(number) }
        }
    }
}

private func loopThread(_ argument: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
    guard let argument else { return nil }
    Unmanaged<UVLoop>.fromOpaque(argument).takeRetainedValue().run()
    return nil
}

/// Closes a handle that is still open when the loop stops, through its owner: `data` of every handle but the wakeup.
private func closeAny(_ handle: UnsafeMutablePointer<uv_handle_t>) {
    guard let data = handle.pointee.data else { return uv_close(handle, nil) }
    (Unmanaged<AnyObject>.fromOpaque(data).takeUnretainedValue() as? any Closable)?.closeNow()
}

/// An owner of a libuv handle that can let go of it at once.
protocol Closable: AnyObject {
    func closeNow()
}
