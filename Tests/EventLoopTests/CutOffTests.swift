import EventLoop
import EventLoopTesting
import Testing

/// What becomes of a connection whose peer takes nothing.
@Suite(.timeLimit(.minutes(1)))
struct CutOffTests {
    private static let body = pattern(32 << 20)

    /// The server's side of a connection whose client has stopped to read, with bytes queued, and the client's.
    private func stuck(_ loop: any Loop) async throws -> (server: any ByteStream, end: Collector, client: Collector) {
        let accepted = Shared<((any ByteStream), Collector)?>(nil)
        let isAccepted = Gate()
        let listener = try loop.listen(host: "127.0.0.1", port: 0) { stream in
            accepted.change { $0 = (stream, Collector(stream)) }
            stream.write(Self.body)
            isAccepted.open()
        }
        let client = try await loop.connect(host: "127.0.0.1", port: listener.port, timeoutMicroseconds: 5_000_000)
        let end = Collector(client)
        client.pauseReading()
        await isAccepted.wait()
        listener.close()
        let (server, serverEnd) = try #require(accepted.value)
        return (server, serverEnd, end)
    }

    private func check(_ loop: any Loop) async throws {
        let (server, end, _) = try await stuck(loop)
        #expect(server.pendingWriteBytes > 0)
        #expect(server.takenBytes + UInt64(server.pendingWriteBytes) == UInt64(Self.body.count))
        server.close(withinMicroseconds: 50_000)
        await end.closed.wait()
        #expect(end.closeCount.value == 1)
        #expect(end.failure.value?.description.contains("did not take its last") == true)
    }

    @Test func closeCutsOffAPeerThatDoesNotRead() async throws {
        try await withUVLoop { try await check($0) }
    }

    @Test(arguments: [1, 2, 3] as [UInt64]) func closeCutsOffAPeerInMemory(seed: UInt64) throws {
        let network = MemoryNetwork(seed: seed)
        let loop = network.makeLoop()
        let done: Bool? = try network.run(on: loop) {
            try await check(loop)
            return true
        }
        #expect(done == true, "seed \(seed)")
    }

    @Test func abortIsAnErrorAtTheOtherEnd() async throws {
        try await withUVLoop { loop in
            let listener = try loop.listen(host: "127.0.0.1", port: 0) { stream in
                stream.start(onBytes: { _ in stream.abort() }, onClose: { _ in })
            }
            let client = try await loop.connect(
                host: "127.0.0.1", port: listener.port, timeoutMicroseconds: 5_000_000)
            let end = Collector(client)
            client.write([1])
            await end.closed.wait()
            listener.close()
            #expect(end.failure.value?.description.contains("reset") == true)
        }
        let network = MemoryNetwork(seed: 4)
        let loop = network.makeLoop()
        let error: LoopError?? = try network.run(on: loop) {
            _ = try loop.listen(host: "", port: 9) { $0.abort() }
            let end = Collector(try await loop.connect(host: "", port: 9, timeoutMicroseconds: 5_000_000))
            await end.closed.wait()
            return end.failure.value
        }
        #expect(error??.description.contains("reset") == true)
        #expect(network.openStreamCount == 0)
    }

    /// A peer that reads slowly is not one that does not read: what it has taken grows.
    @Test func takenBytesGrowWithAReader() async throws {
        try await withUVLoop { loop in
            let (server, serverEnd, clientEnd) = try await stuck(loop)
            let before = server.takenBytes
            server.close()
            #expect(server.takenBytes == before)
            #expect(!serverEnd.closed.isOpen)
            clientEnd.stream.resumeReading()
            await clientEnd.closed.wait()
            #expect(clientEnd.bytes.value.count == Self.body.count)
            #expect(serverEnd.failure.value == nil)
        }
    }

    @Test func aTimerWithoutEndDoesNotOverflow() async throws {
        try await withUVLoop { $0.schedule(afterMicroseconds: .max) {}.cancel() }
    }
}

@Suite(.timeLimit(.minutes(1)))
struct WaitersTests {
    /// A job that wakes runs between the test of the condition and the suspension, again and again.
    @Test func aWakeUpBeforeTheSuspensionCounts() throws {
        let network = MemoryNetwork(seed: 1)
        let loop = network.makeLoop()
        let done: Bool? = try network.run(on: loop) {
            for _ in 0..<100 {
                let waiters = Waiters()
                let isOpen = Shared(false)
                let wait = Task.immediate(executorPreference: loop) {
                    await waiters.wait { !isOpen.value }
                }
                loop.execute {
                    isOpen.change { $0 = true }
                    waiters.wake()
                }
                await wait.value
            }
            return true
        }
        #expect(done == true)
    }

    @Test func aWaitEndsInTime() throws {
        let network = MemoryNetwork(seed: 1)
        let loop = network.makeLoop()
        let time: UInt64? = try network.run(on: loop) {
            await Waiters().wait(loop, atMostMicroseconds: 5000) { true }
            return loop.now
        }
        #expect(time == 5000)
    }
}
