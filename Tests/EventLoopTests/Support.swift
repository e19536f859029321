import EventLoop
import Glibc
import Synchronization

/// A value that many closures share.
final class Shared<Value: Sendable>: Sendable {
    private let box: Mutex<Value>

    init(_ value: Value) { box = Mutex(value) }

    var value: Value { box.withLock { $0 } }

    @discardableResult
    func change<Result: Sendable>(_ body: (inout sending Value) -> sending Result) -> Result {
        box.withLock { body(&$0) }
    }
}

/// Something that happens once and can be waited for.
final class Gate: Sendable {
    private let state = Mutex<(isOpen: Bool, waiters: [CheckedContinuation<Void, Never>])>((false, []))

    var isOpen: Bool { state.withLock { $0.isOpen } }

    func open() {
        let waiters = state.withLock { state in
            state.isOpen = true
            defer { state.waiters = [] }
            return state.waiters
        }
        for waiter in waiters { waiter.resume() }
    }

    func wait() async {
        await withCheckedContinuation { continuation in
            let isOpen = state.withLock { state in
                if !state.isOpen { state.waiters.append(continuation) }
                return state.isOpen
            }
            if isOpen { continuation.resume() }
        }
    }
}

/// Runs `body` on a loop with a thread of its own, which has ended when this returns.
func withUVLoop<Value: Sendable>(
    _ body: @escaping @Sendable (UVLoop) async throws -> Value
) async throws -> Value {
    let loop = UVLoop()
    loop.start()
    let result = await Task(executorPreference: loop) { try await body(loop) }.result
    loop.stop()
    loop.join()
    return try result.get()
}

/// A pinned actor, for isolation checks.
actor Pinned {
    private let loop: any Loop
    nonisolated var unownedExecutor: UnownedSerialExecutor { loop.asUnownedSerialExecutor() }
    private(set) var order: [Int] = []

    init(_ loop: any Loop) { self.loop = loop }

    func add(_ number: Int) -> Bool {
        order.append(number)
        return loop.isIsolatingCurrentContext() == true
    }
}

/// Open descriptors of the kinds that a loop opens.
func descriptorCount() -> Int {
    let kinds = ["socket:", "pipe:", "anon_inode:[event", "/dev/null"]
    return (0..<1024).count { number in
        var target = [CChar](repeating: 0, count: 64)
        guard readlink("/proc/self/fd/\(number)", &target, 63) > 0 else { return false }
        let name = String(decoding: target.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        return kinds.contains { name.hasPrefix($0) }
    }
}

/// Collects what a stream brings, and when it ends.
final class Collector: Sendable {
    let bytes = Shared<[UInt8]>([])
    let failure = Shared<LoopError?>(nil)
    let closeCount = Shared(0)
    let closed = Gate()
    let stream: any ByteStream
    private let wanted: Int
    let complete = Gate()

    init(_ stream: any ByteStream, wanted: Int = .max) {
        self.wanted = wanted
        self.stream = stream
        stream.start(
            onBytes: { [self] raw in
                let count = bytes.change {
                    $0.append(contentsOf: raw)
                    return $0.count
                }
                if count >= self.wanted { complete.open() }
            },
            onClose: { [self] error in
                failure.change { $0 = error }
                closeCount.change { $0 += 1 }
                closed.open()
                complete.open()
            })
    }
}

/// Bytes that look like noise and are the same every time; they repeat after an odd length.
func pattern(_ count: Int) -> [UInt8] {
    var state: UInt32 = 12345
    let block = (0..<min(count, 4093)).map { _ in
        state = state &* 1_664_525 &+ 1_013_904_223
        return UInt8(truncatingIfNeeded: state >> 24)
    }
    var bytes = block
    bytes.reserveCapacity(count)
    while bytes.count < count { bytes.append(contentsOf: block.prefix(count - bytes.count)) }
    return bytes
}

/// Sends back what comes.
func echo(_ stream: any ByteStream) {
    stream.start(onBytes: { stream.write(Array($0)) }, onClose: { _ in })
}

/// Memory that a stream may borrow.
final class Slab: Sendable {
    private let base: Mutex<UnsafeMutableRawBufferPointer>
    private let onFree: @Sendable () -> Void

    init(_ bytes: [UInt8], onFree: @escaping @Sendable () -> Void) {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 64)
        buffer.copyBytes(from: bytes)
        base = Mutex(buffer)
        self.onFree = onFree
    }

    var bytes: UnsafeRawBufferPointer {
        nonisolated(unsafe) let buffer = base.withLock { UnsafeRawBufferPointer($0) }
        return buffer
    }

    deinit {
        base.withLock { $0.deallocate() }
        onFree()
    }
}
