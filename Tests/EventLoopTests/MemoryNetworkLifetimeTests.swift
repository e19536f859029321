import EventLoop
import EventLoopTesting
import Testing

/// What a network in memory owns, and that all of it goes with it. Each test is named after what went wrong.
struct MemoryNetworkLifetimeTests {
    /// Something that is held, and knows when it is not any more.
    private final class Token: Sendable {}

    /// Objects that must be gone.
    private final class Suspects {
        private var checks: [(name: String, isThere: () -> Bool)] = []

        func add(_ name: String, _ object: AnyObject) {
            checks.append((name, { [weak object] in object != nil }))
        }

        var left: [String] { checks.filter { $0.isThere() }.map(\.name) }
    }

    /// A network with two loops and both ends of a connection between them, on which deliveries are pending.
    private static func connected(
        seed: UInt64, _ suspects: Suspects
    ) throws -> (MemoryNetwork, MemoryLoop, [Collector]) {
        let network = MemoryNetwork(seed: seed)
        let (server, client) = (network.makeLoop("server"), network.makeLoop("client"))
        let ends = Shared<[Collector]>([])
        let isConnected: Bool? = try network.run(on: client) {
            _ = try server.listen(host: "", port: 1) { stream in ends.change { $0.append(Collector(stream)) } }
            let stream = try await client.connect(host: "", port: 1, timeoutMicroseconds: 1_000_000)
            ends.change { $0.append(Collector(stream)) }
            stream.write(pattern(1 << 20))
            return true
        }
        try #require(isConnected == true && network.eventCount > 0 && network.openStreamCount == 2, "seed \(seed)")
        suspects.add("network", network)
        for (name, loop) in [("server", server), ("client", client)] { suspects.add(name, loop) }
        for end in ends.value {
            suspects.add("stream", end.stream)
            suspects.add("reader", end)
        }
        return (network, client, ends.value)
    }

    @Test(arguments: MemoryNetworkTests.seeds) func aClosedNetworkFreesItsTimersAndDeliveries(seed: UInt64) throws {
        let suspects = Suspects()
        try { () throws in
            let (network, client, ends) = try Self.connected(seed: seed, suspects)
            let token = Token()
            suspects.add("token", token)
            client.schedule(afterMicroseconds: 3_600_000_000) {
                withExtendedLifetime((token, network, client)) { _ = Issue.record("a timer fired") }
            }
            network.close()
            #expect(network.eventCount == 0 && network.openStreamCount == 0 && network.listenerCount == 0)
            for end in ends {
                #expect(end.closeCount.value == 1 && end.failure.value != nil, "seed \(seed)")
            }
            #expect(network.runUntilIdle(), "the timers fire no more")
        }()
        #expect(suspects.left.isEmpty, "seed \(seed): \(suspects.left)")
    }

    /// Nothing that is pending knows the network here, so that forgetting it is enough.
    @Test(arguments: MemoryNetworkTests.seeds) func loopsAndStreamsDoNotKeepTheirNetwork(seed: UInt64) throws {
        let suspects = Suspects()
        try { () throws in
            let (network, client, ends) = try Self.connected(seed: seed, suspects)
            client.schedule(afterMicroseconds: 5) { client.execute {} }
            withExtendedLifetime((network, ends)) {}
        }()
        #expect(suspects.left.isEmpty, "seed \(seed): \(suspects.left)")
    }

    @Test func aCancelledTimerFreesWhatItHolds() {
        let network = MemoryNetwork(seed: 1)
        let loop = network.makeLoop()
        let suspects = Suspects()
        for number in 0..<1000 {
            let token = Token()
            suspects.add("\(number)", token)
            loop.schedule(afterMicroseconds: 3_600_000_000) { withExtendedLifetime(token) {} }.cancel()
        }
        #expect(network.eventCount == 0 && suspects.left.count < 100, "\(suspects.left.count) of 1000 are held")
    }

    @Test func whatIsUnderWayFailsOnAClosedNetwork() throws {
        let network = MemoryNetwork(seed: 1)
        let loop = network.makeLoop()
        let ends = Shared<[String]>([])
        for _ in 0..<2 {
            loop.execute {
                Task.immediate(executorPreference: loop) {
                    do { _ = try await loop.connect(host: "host", port: 1, timeoutMicroseconds: 5_000_000) } catch {
                        ends.change { $0.append("\(error)") }
                    }
                    do { _ = try await loop.addresses(of: "name") } catch { ends.change { $0.append("\(error)") } }
                }
            }
            network.run(forMicroseconds: 1)
            network.close()
            #expect(ends.value == ["host:1: connection refused", "name cannot be resolved: the network is closed"])
            ends.change { $0 = [] }
        }
        #expect(throws: LoopError.self) { _ = try loop.listen(host: "", port: 1) { _ in } }
    }
}
