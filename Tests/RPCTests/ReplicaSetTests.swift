import EventLoop
import EventLoopTesting
import RPC
import TestSupport
import Testing
import WireProtocol

/// Calls to replicas behind a name, on a network in memory with virtual time.
struct ReplicaSetTests {
    /// Replicas that answer with their number, behind the name "echo".
    private final class Fixture: @unchecked Sendable {
        let network: MemoryNetwork
        let client: MemoryLoop
        private let loops: [MemoryLoop]
        private(set) var servers: [RPCServer?]
        private var refused: Set<String> = []

        init(seed: UInt64, count: Int) {
            network = MemoryNetwork(seed: seed)
            client = network.makeLoop("client")
            loops = (0..<count).map { [network] in network.makeLoop("server-\($0)") }
            servers = Array(repeating: nil, count: count)
            for index in 0..<count {
                network.assign("\(Self.address(index)):80", port: 8000 + index)
                start(index)
            }
            network.run(forMicroseconds: 1)
            announce(Array(0..<count))
        }

        static func address(_ index: Int) -> String { "10.0.0.\(index + 1)" }

        /// What lookups find from now on.
        func announce(_ indices: [Int]) { network.setAddresses(of: "echo", indices.map(Self.address)) }

        func start(_ index: Int) {
            let loop = loops[index]
            loop.execute { [self] in
                let server = RPCServer(
                    loop: loop, identity: PeerIdentity(role: "sampler", instanceID: "s\(index)", fingerprint: "f00d"),
                    secret: [1], roles: ["attention"], handler: Numbered(number: UInt8(index), loop: loop))
                servers[index] = server
                do { _ = try server.listen(host: "memory", port: 8000 + index) } catch { Issue.record(error) }
            }
        }

        /// Ends a server as a crash would.
        func kill(_ index: Int) {
            loops[index].execute { [self] in
                servers[index]?.close()
                servers[index] = nil
            }
            network.cut(port: 8000 + index)
        }

        func refuse(_ index: Int) { refused.insert(Self.address(index)) }

        func makeSet() -> ReplicaSet {
            ReplicaSet(
                name: "echo", host: "echo", loop: client,
                makeClient: { [client] host in
                    RPCClient(
                        loop: client, host: host, port: 80,
                        identity: PeerIdentity(role: "attention", fingerprint: "f00d"), role: "sampler",
                        fingerprint: "f00d", secret: [1])
                },
                admit: { [self] peer throws(RPCError) in
                    if refused.contains(peer.host) { throw RPCError(.mismatch, "\(peer.host) does not fit") }
                })
        }

        func run<Value: Sendable>(_ body: @escaping @Sendable (ReplicaSet) async throws -> Value) throws -> Value {
            let value = try network.run(on: client) { [self] in
                let set = makeSet()
                set.start()
                defer { set.close() }
                return try await body(set)
            }
            return try #require(value, "nothing happened any more; seed \(network.seed)")
        }
    }

    private final class Numbered: RPCHandler {
        private let number: UInt8
        private let loop: MemoryLoop

        init(number: UInt8, loop: MemoryLoop) {
            self.number = number
            self.loop = loop
        }

        func handle(_ call: ServerCall) async throws(RPCError) -> RPCPayload {
            if call.metadata == [9], number == 0 { await loop.pause(microseconds: 60_000_000) }
            return RPCPayload(metadata: [number] + call.metadata)
        }
    }

    private static let second: UInt64 = 1_000_000

    private static func who(_ set: ReplicaSet, calls: Int = 1) async throws -> [UInt8] {
        var numbers: [UInt8] = []
        for _ in 0..<calls {
            let reply = try await set.call(
                .echo, RPCPayload(metadata: [7]), timeoutMicroseconds: 10 * second)
            #expect(reply.metadata.last == 7)
            numbers += reply.metadata.prefix(1)
        }
        return numbers
    }

    @Test(arguments: [1, 2, 3] as [UInt64]) func callsGoToAllReplicasInTurn(seed: UInt64) throws {
        let fixture = Fixture(seed: seed, count: 3)
        let numbers = try fixture.run { set in
            await fixture.client.pause(microseconds: Self.second)
            return try await Self.who(set, calls: 30)
        }
        for index in 0..<3 { #expect(numbers.count { $0 == index } == 10, "seed \(seed)") }
        fixture.network.runUntilIdle(limitMicroseconds: 60 * Self.second)
    }

    @Test func aReplicaThatJoinsGetsCallsAndOneThatLeavesGetsNone() throws {
        let fixture = Fixture(seed: 4, count: 3)
        fixture.announce([0])
        try fixture.run { set in
            try await set.waitReady(timeoutMicroseconds: Self.second)
            let first = try await Self.who(set, calls: 10)
            #expect(Set(first) == [0])
            fixture.announce([0, 1, 2])
            await fixture.client.pause(microseconds: 2 * Self.second)
            let all = try await Self.who(set, calls: 10)
            #expect(Set(all) == [0, 1, 2])
            #expect(set.counters["replicas_ready"] == 3)
            fixture.announce([2])
            await fixture.client.pause(microseconds: 3 * Self.second)
            let last = try await Self.who(set, calls: 10)
            #expect(Set(last) == [2])
            #expect(set.counters["replicas"] == 1)
        }
    }

    /// Replicas die in mid-call and come back; every call is answered, and with what was asked.
    @Test(arguments: 1...10) func aCallSurvivesItsReplica(seed: UInt64) throws {
        let fixture = Fixture(seed: seed, count: 3)
        try fixture.run { set in
            try await set.waitReady(timeoutMicroseconds: Self.second)
            let killer = Task(executorPreference: fixture.client) {
                var generator = SeededRandom(seed: seed)
                while !Task.isCancelled {
                    let victim = Int.random(in: 0..<3, using: &generator)
                    fixture.kill(victim)
                    await fixture.client.pause(microseconds: UInt64.random(in: 1000...50_000, using: &generator))
                    fixture.start(victim)
                    await fixture.client.pause(microseconds: UInt64.random(in: 1000...50_000, using: &generator))
                }
            }
            let numbers = try await Self.who(set, calls: 2000)
            killer.cancel()
            _ = await killer.result
            #expect(Set(numbers).count > 1, "seed \(seed)")
            #expect((set.counters["retries"] ?? 0) > 0, "seed \(seed): nothing was lost")
        }
    }

    @Test func aCallGoesOnToAnotherReplicaWhenOneNeverAnswers() throws {
        let fixture = Fixture(seed: 5, count: 2)
        try fixture.run { set in
            await fixture.client.pause(microseconds: Self.second)
            for _ in 0..<4 {
                let start = fixture.client.now
                // Replica 0 takes this one and keeps it.
                let reply = try await set.call(
                    .echo, RPCPayload(metadata: [9]), timeoutMicroseconds: 4 * Self.second)
                #expect(reply.metadata == [1, 9])
                #expect(fixture.client.now - start < 3 * Self.second)
            }
            #expect((set.counters["retries"] ?? 0) > 0)
        }
    }

    @Test func aReplicaThatDoesNotFitGetsNoCalls() throws {
        let fixture = Fixture(seed: 6, count: 2)
        fixture.refuse(0)
        try fixture.run { set in
            await fixture.client.pause(microseconds: Self.second)
            let numbers = try await Self.who(set, calls: 10)
            #expect(Set(numbers) == [1])
        }
        fixture.refuse(1)
        try fixture.run { set in
            let error = await failure { try await set.waitReady(timeoutMicroseconds: 30 * Self.second) }
            #expect(error?.code == .mismatch && error?.message.contains("does not fit") == true)
        }
    }

    @Test func aNameThatDoesNotResolveIsNamedAndMayComeLater() throws {
        let fixture = Fixture(seed: 7, count: 1)
        fixture.network.setAddresses(of: "echo", nil)
        try fixture.run { set in
            let error = await failure { try await set.waitReady(timeoutMicroseconds: Self.second) }
            #expect(error?.code == .unavailable && error?.message.contains("echo cannot be resolved") == true)
            fixture.announce([0])
            let numbers = try await Self.who(set)
            #expect(numbers == [0])
        }
    }

    @Test func closingLeavesNothingBehind() throws {
        let fixture = Fixture(seed: 8, count: 3)
        try fixture.run { set in
            await fixture.client.pause(microseconds: Self.second)
            _ = try await Self.who(set, calls: 5)
        }
        for index in 0..<3 { fixture.kill(index) }
        fixture.network.runUntilIdle(limitMicroseconds: 60 * Self.second)
        #expect(fixture.network.openStreamCount == 0 && fixture.network.eventCount == 0)
    }
}

extension Loop {
    /// Lets time pass.
    func pause(microseconds: UInt64) async {
        await withCheckedContinuation { continuation in
            schedule(afterMicroseconds: microseconds) { continuation.resume() }
        }
    }
}
