import EventLoop
import Glibc
import Synchronization
import Testing

@Suite(.timeLimit(.minutes(1)))
struct UVLoopTests {
    @Test func actionsAndJobsRunInOrder() async {
        await withLoop { loop in
            let seen = Mutex<[Int]>([])
            let done = Event()
            for index in 0..<1000 { loop.execute { seen.withLock { $0.append(index) } } }
            loop.execute {
                // From the loop's own thread they come after what is queued, still in order.
                for index in 1000..<2000 { loop.execute { seen.withLock { $0.append(index) } } }
                loop.execute { done.fire() }
            }
            await done.wait()
            #expect(seen.withLock { $0 } == Array(0..<2000))
        }
    }

    @Test func tasksStayOnTheLoop() async {
        await withLoop { loop in
            let isOn = await Task(executorPreference: loop) {
                var isOn = loop.isCurrent
                for _ in 0..<600 {
                    await Task.yield()
                    isOn = isOn && loop.isCurrent
                }
                return isOn
            }.value
            #expect(isOn)
            #expect(!loop.isCurrent)
        }
    }

    @Test func timersFireInOrderAndCancelledOnesNot() async {
        await withLoop { loop in
            let seen = Mutex<[Int]>([])
            let done = Event()
            loop.execute {
                let start = loop.now
                for delay in [30, 10, 20, 1] {
                    loop.schedule(afterMicroseconds: UInt64(delay) * 1000) {
                        #expect(loop.now - start >= UInt64(delay) * 1000 - 1000)
                        seen.withLock { $0.append(delay) }
                    }
                }
                let cancelled = loop.schedule(afterMicroseconds: 5000) { seen.withLock { $0.append(-1) } }
                loop.schedule(afterMicroseconds: 0) { cancelled.cancel() }
                loop.schedule(afterMicroseconds: 40_000) { done.fire() }
            }
            await done.wait()
            #expect(seen.withLock { $0 } == [1, 10, 20, 30])
        }
    }

    @Test func echoesEightMegabytes() async throws {
        let bytes = (0..<8 << 20).map { UInt8(truncatingIfNeeded: $0 &* 31 >> 4) }
        try await withEcho { loop, port in
            let received = Mutex<[UInt8]>([])
            let done = Event()
            let stream = try await loop.connect(host: "127.0.0.1", port: port, timeoutMicroseconds: 10_000_000)
            stream.start(
                onBytes: { part in
                    let count = received.withLock { received in
                        received.append(contentsOf: part)
                        return received.count
                    }
                    if count >= bytes.count { done.fire() }
                }, onClose: { _ in done.fire() })
            stream.write(bytes)
            await done.wait()
            let isSame = received.withLock { $0 } == bytes
            #expect(isSame)
            stream.close()
        }
    }

    @Test func refusedConnectionNamesTheAddress() async throws {
        try await withLoop { loop in
            try await Task(executorPreference: loop) {
                let listener = try loop.listen(host: "127.0.0.1", port: 0) { $0.close() }
                let port = listener.port
                listener.close()
                do throws(LoopError) {
                    let stream = try await loop.connect(
                        host: "127.0.0.1", port: port, timeoutMicroseconds: 10_000_000)
                    stream.close()
                    Issue.record("connected to a closed port")
                } catch {
                    #expect(error.description.contains("127.0.0.1:\(port)"))
                }
            }.value
        }
    }

    @Test func takenPortIsRefused() async throws {
        try await withLoop { loop in
            try await Task(executorPreference: loop) {
                let listener = try loop.listen(host: "127.0.0.1", port: 0) { $0.close() }
                #expect(throws: LoopError.self) {
                    try loop.listen(host: "127.0.0.1", port: listener.port) { $0.close() }
                }
                #expect(throws: LoopError.self) { try loop.listen(host: "127.0.0.1", port: 65536) { $0.close() } }
                #expect(throws: LoopError.self) { try loop.listen(host: "nowhere", port: 0) { $0.close() } }
                listener.close()
            }.value
        }
    }

    /// What is queued when a stream is closed still goes out, and the close is reported once, after it.
    @Test func closeDuringPendingWriteDeliversIt() async throws {
        let size = 32 << 20
        try await withLoop { loop in
            try await Task(executorPreference: loop) {
                let received = Atomic<Int>(0)
                let (serverClosed, clientClosed) = (Event(), Event())
                let closes = Atomic<Int>(0)
                let pending = Atomic<Int>(0)
                let listener = try loop.listen(host: "127.0.0.1", port: 0) { stream in
                    stream.start(onBytes: { _ in }) { _ in
                        closes.add(1, ordering: .sequentiallyConsistent)
                        serverClosed.fire()
                    }
                    stream.write([UInt8](repeating: 7, count: size))
                    pending.store(stream.pendingWriteBytes, ordering: .sequentiallyConsistent)
                    stream.close()
                    stream.close()
                }
                let client = try await loop.connect(
                    host: "127.0.0.1", port: listener.port, timeoutMicroseconds: 10_000_000)
                client.start(
                    onBytes: { received.add($0.count, ordering: .sequentiallyConsistent) },
                    onClose: { _ in clientClosed.fire() })
                await clientClosed.wait()
                await serverClosed.wait()
                #expect(pending.load(ordering: .sequentiallyConsistent) > 0)
                #expect(received.load(ordering: .sequentiallyConsistent) == size)
                #expect(closes.load(ordering: .sequentiallyConsistent) == 1)
                listener.close()
            }.value
        }
    }

    @Test func descriptorsAreGivenBack() async throws {
        let ended = Atomic<Int>(0)
        let allEnded = Event()
        let onEnd: @Sendable () -> Void = {
            if ended.add(1, ordering: .sequentiallyConsistent).newValue == 200 { allEnded.fire() }
        }
        try await withEcho(onEnd) { loop, port in
            for index in 0..<200 {
                let closed = Event()
                let stream = try await loop.connect(host: "127.0.0.1", port: port, timeoutMicroseconds: 10_000_000)
                stream.start(onBytes: { _ in stream.close() }, onClose: { _ in closed.fire() })
                stream.write([1, 2, 3])
                if index % 2 == 0 { stream.close() }
                await closed.wait()
            }
            // The listener stays; the server's ends follow as soon as its loop has seen the clients go.
            await allEnded.wait()
            #expect(descriptors(port: port) == 1)
        }
    }

    @Test func stoppingALoopClosesWhatIsOpen() async throws {
        let loop = UVLoop()
        loop.start()
        let (accepted, closed) = (Event(), Event())
        let port = try await Task(executorPreference: loop) {
            let listener = try loop.listen(host: "127.0.0.1", port: 0) { stream in
                stream.start(onBytes: { _ in }, onClose: { _ in closed.fire() })
                accepted.fire()
            }
            let client = try await loop.connect(
                host: "127.0.0.1", port: listener.port, timeoutMicroseconds: 10_000_000)
            client.start(onBytes: { _ in }, onClose: { _ in })
            loop.schedule(afterMicroseconds: 3_600_000_000) { Issue.record("fired") }
            return listener.port
        }.value
        await accepted.wait()
        #expect(descriptors(port: port) == 3)
        loop.stop()
        await closed.wait()
        loop.join()
        #expect(descriptors(port: port) == 0)
    }

    private func withLoop(_ body: (UVLoop) async throws -> Void) async rethrows {
        let loop = UVLoop()
        loop.start()
        defer {
            loop.stop()
            loop.join()
        }
        try await body(loop)
    }

    /// Runs `body` on a loop with a server on another that sends back what it gets.
    private func withEcho(
        _ onEnd: @escaping @Sendable () -> Void = {}, _ body: @escaping @Sendable (UVLoop, Int) async throws -> Void
    ) async throws {
        try await withLoop { server in
            let port = try await Task(executorPreference: server) {
                try server.listen(host: "127.0.0.1", port: 0) { stream in
                    stream.start(onBytes: { stream.write(Array($0)) }, onClose: { _ in onEnd() })
                }.port
            }.value
            try await withLoop { loop in
                try await Task(executorPreference: loop) { try await body(loop, port) }.value
            }
        }
    }
}

/// Open sockets of this process from or to `port`; those of other tests do not count.
private func descriptors(port: Int) -> Int {
    (Int32(0)..<8192).count { descriptor in
        [getsockname, getpeername].contains { name in
            var address = sockaddr_in()
            var length = socklen_t(MemoryLayout<sockaddr_in>.size)
            let status = withUnsafeMutablePointer(to: &address) { pointer in
                pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { name(descriptor, $0, &length) }
            }
            return status == 0 && Int32(address.sin_family) == AF_INET
                && Int(UInt16(bigEndian: address.sin_port)) == port
        }
    }
}

/// Something that happens once and can be waited for.
private final class Event: Sendable {
    private struct State {
        var isFired = false
        var waiters: [CheckedContinuation<Void, Never>] = []
    }

    private let state = Mutex(State())

    func fire() {
        let waiters = state.withLock { state in
            state.isFired = true
            defer { state.waiters.removeAll() }
            return state.waiters
        }
        for waiter in waiters { waiter.resume() }
    }

    func wait() async {
        await withCheckedContinuation { continuation in
            let isFired = state.withLock { state in
                if !state.isFired { state.waiters.append(continuation) }
                return state.isFired
            }
            if isFired { continuation.resume() }
        }
    }
}
