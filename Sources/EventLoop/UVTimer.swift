import CLibuv

/// One-shot timer; the handle lives until libuv has closed it. Confined to its loop, which its end asserts; a box for its
/// variables would be one more allocation for each timer.
final class UVTimer: LoopTimer, Closable, @unchecked Sendable {
    private var handle: UnsafeMutablePointer<uv_timer_t>?
    private let loop: UVLoop
    private var action: (@Sendable () -> Void)?

    init(_ loop: UVLoop, milliseconds: UInt64, _ action: @escaping @Sendable () -> Void) {
        self.loop = loop
        guard !loop.isStopping else { return }
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
        loop.assertIsolated()
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

/// Calls its action at every signal; the handle lives until the loop stops.
final class UVSignal: Closable, Sendable {
    private let loop: UVLoop
    private let action: @Sendable () -> Void
    private let handle: LoopBound<UnsafeMutablePointer<uv_signal_t>?>

    init(_ loop: UVLoop, _ action: @escaping @Sendable () -> Void) {
        self.loop = loop
        handle = LoopBound(nil, on: loop)
        self.action = action
    }

    func start(_ number: Int32) {
        let handle = UnsafeMutablePointer<uv_signal_t>.allocate(capacity: 1)
        self.handle.value = handle
        uv_signal_init(loop.handle, handle)
        handle.pointee.data = Unmanaged.passRetained(self).toOpaque()
        uv_signal_start(
            handle,
            { handle, _ in
                guard let data = handle?.pointee.data else { return }
                let signal = Unmanaged<UVSignal>.fromOpaque(data).takeUnretainedValue()
                signal.loop.callback { signal.action() }
            }, number)
    }

    func closeNow() {
        guard let handle = handle.value else { return }
        self.handle.value = nil
        handle.withMemoryRebound(to: uv_handle_t.self, capacity: 1) { handle in
            uv_close(handle) { handle in
                guard let data = handle?.pointee.data else { return }
                Unmanaged<UVSignal>.fromOpaque(data).release()
                handle?.deallocate()
            }
        }
    }
}
