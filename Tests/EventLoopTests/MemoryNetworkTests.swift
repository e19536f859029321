import EventLoop
import EventLoopTesting
import Testing

struct MemoryNetworkTests {
    static let seeds: [UInt64] = [1, 2, 3, 42, 0xDEAD_BEEF]

    @Test func timersRunInVirtualTime() {
        let network = MemoryNetwork(seed: 1)
        let loop = network.makeLoop()
        let order = Shared<[UInt64]>([])
        for delay in [3_600_000_000, 5, 1_000_000, 5] as [UInt64] {
            loop.schedule(afterMicroseconds: delay) { order.change { $0.append(loop.now) } }
        }
        loop.schedule(afterMicroseconds: 7) { Issue.record("a cancelled timer fired") }.cancel()
        network.run(forMicroseconds: 10)
        #expect(order.value == [5, 5])
        #expect(network.now == 10)
        #expect(network.runUntilIdle())
        #expect(order.value == [5, 5, 1_000_000, 3_600_000_000])
        #expect(network.eventCount == 0)
    }

    @Test func tasksAndActorsRunOnTheirLoop() throws {
        let network = MemoryNetwork(seed: 1)
        let (loop, other) = (network.makeLoop(), network.makeLoop())
        let pinned = Pinned(other)
        let order = try network.run(on: loop) {
            for number in 0..<100 {
                #expect(await pinned.add(number))
                loop.checkIsolated()
            }
            return await pinned.order
        }
        #expect(order == Array(0..<100))
    }

    /// Two connections at once, echoed; what came and when.
    private static func trace(seed: UInt64) throws -> (lines: [String], digest: UInt64)? {
        var behaviour = MemoryNetwork.Behaviour()
        behaviour.pieceBytes = 1...64
        let network = MemoryNetwork(seed: seed, behaviour: behaviour)
        let (server, client) = (network.makeLoop("server"), network.makeLoop("client"))
        server.execute {
            do { _ = try server.listen(host: "server", port: 80) { echo($0) } } catch { Issue.record(error) }
        }
        let lines: [String]? = try network.run(on: client) {
            let trace = Shared<[String]>([])
            let sent = pattern(5000)
            var streams: [any ByteStream] = []
            for _ in 0..<2 {
                streams.append(try await client.connect(host: "server", port: 80, timeoutMicroseconds: 1_000_000))
            }
            var ends: [Gate] = []
            for (name, stream) in zip(["a", "b"], streams) {
                let (received, end) = (Shared<[UInt8]>([]), Gate())
                stream.start(
                    onBytes: { raw in
                        received.change { $0.append(contentsOf: raw) }
                        trace.change { $0.append("\(name) \(client.now) \(raw.count)") }
                        if received.value.count == sent.count { stream.close() }
                    },
                    onClose: { _ in
                        #expect(received.value == sent, "seed \(seed)")
                        end.open()
                    })
                stream.write(sent)
                ends.append(end)
            }
            for end in ends { await end.wait() }
            return trace.value
        }
        return lines.map { ($0, network.digest) }
    }

    @Test(arguments: seeds) func theSameSeedIsTheSameRun(seed: UInt64) throws {
        let first = try #require(try Self.trace(seed: seed))
        let again = try #require(try Self.trace(seed: seed))
        #expect(again.lines == first.lines && again.digest == first.digest, "seed \(seed)")
        let other = try #require(try Self.trace(seed: seed &+ 1))
        #expect(other.lines != first.lines && other.digest != first.digest, "seed \(seed)")
    }

    @Test func connectionsOvertakeEachOther() throws {
        var leaders: Set<String> = []
        for seed in 0..<20 as Range<UInt64> {
            if let first = try Self.trace(seed: seed)?.lines.last?.prefix(1) { leaders.insert(String(first)) }
        }
        #expect(leaders == ["a", "b"])
    }

    @Test(arguments: seeds) func backpressureHoldsBytesAtTheSender(seed: UInt64) throws {
        let network = MemoryNetwork(seed: seed)
        let loop = network.makeLoop()
        let body = pattern(8 << 20)
        let result = try network.run(on: loop) {
            let server = Shared<((any ByteStream), Collector)?>(nil)
            let accepted = Gate()
            _ = try loop.listen(host: "", port: 9) { stream in
                let collector = Collector(stream, wanted: body.count)
                server.change { $0 = (stream, collector) }
                stream.pauseReading()
                accepted.open()
            }
            let client = try await loop.connect(host: "", port: 9, timeoutMicroseconds: 1_000_000)
            let end = Collector(client)
            await accepted.wait()
            let drained = Gate()
            client.onDrained = { drained.open() }
            client.write(body)
            await withCheckedContinuation { continuation in
                loop.schedule(afterMicroseconds: 1_000_000) { continuation.resume() }
            }
            #expect(client.pendingWriteBytes > body.count - (1 << 20))
            server.value?.0.resumeReading()
            await drained.wait()
            await server.value?.1.complete.wait()
            #expect(server.value?.1.bytes.value == body)
            client.close()
            await end.closed.wait()
            await server.value?.1.closed.wait()
            return true
        }
        #expect(result == true, "seed \(seed)")
        #expect(network.openStreamCount == 0)
    }

    @Test(arguments: seeds) func aCutEndsBothSidesWithAnError(seed: UInt64) throws {
        let network = MemoryNetwork(seed: seed)
        let (server, client) = (network.makeLoop("server"), network.makeLoop("client"))
        let result = try network.run(on: client) {
            let ends = Shared<[Collector]>([])
            server.execute {
                do {
                    _ = try server.listen(host: "", port: 1) { stream in
                        let collector = Collector(stream)
                        ends.change { $0.append(collector) }
                    }
                } catch { Issue.record(error) }
            }
            network.cutNextConnection(port: 1, afterBytes: 1000)
            let stream = try await client.connect(host: "", port: 1, timeoutMicroseconds: 1_000_000)
            let end = Collector(stream)
            stream.write(pattern(1 << 20))
            await end.closed.wait()
            #expect(end.failure.value != nil)
            let again = try await client.connect(host: "", port: 1, timeoutMicroseconds: 1_000_000)
            let second = Collector(again)
            again.write(pattern(2000))
            client.schedule(afterMicroseconds: 10_000) { network.cut() }
            await second.closed.wait()
            #expect(second.failure.value != nil)
            for end in ends.value {
                await end.closed.wait()
                #expect(end.failure.value != nil)
                #expect(end.closeCount.value == 1)
            }
            return ends.value.map(\.bytes.value.count)
        }
        let counts = try #require(result, "seed \(seed)")
        #expect(counts.count == 2)
        #expect(counts[0] <= 1000)
        #expect(counts[1] == 2000)
        #expect(network.openStreamCount == 0)
    }

    @Test func refusalsAndTimeoutsAreAsOnARealLoop() throws {
        var behaviour = MemoryNetwork.Behaviour()
        behaviour.delayMicroseconds = 1000...1000
        let network = MemoryNetwork(seed: 1, behaviour: behaviour)
        let loop = network.makeLoop()
        let result = try network.run(on: loop) {
            let listener = try loop.listen(host: "", port: 0) { echo($0) }
            let port = listener.port
            #expect(throws: LoopError.self) { _ = try loop.listen(host: "", port: port) { _ in } }
            await #expect(throws: LoopError.self) {
                _ = try await loop.connect(host: "", port: port, timeoutMicroseconds: 1500)
            }
            listener.close()
            await #expect(throws: LoopError.self) {
                _ = try await loop.connect(host: "", port: port, timeoutMicroseconds: 10_000)
            }
            return true
        }
        #expect(result == true)
        #expect(network.listenerCount == 0)
    }
}
