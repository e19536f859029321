import Emulation
import EventLoop
import EventLoopTesting
import Foundation
import GatewayService
import HTTP
import RPC
import Scheduling
import ServiceSupport
import Serving
import Testing
import WireProtocol

/// A gateway over attention instances that take requests and answer none, on a network in memory with virtual time.
final class FailingFleet: @unchecked Sendable {
    /// What becomes of a request at an instance.
    enum Fault: Sendable {
        /// It is sent away, as by an instance that is about to stop. That opens no circuit breaker.
        case refused
        /// Its stream breaks after a token. Its instance counts as well again with every first token, so that no circuit
        /// breaker opens.
        case brokenAfterAToken
        /// It hears nothing.
        case silence
        /// It is told every second that its instance is there, and does nothing.
        case standsStill
        /// Its instance works at its prompt for three minutes before the first token.
        case worksLong
        /// It gets all tokens, and never hears that it is over.
        case lostEnd
        /// It has no place to go: its instance does not say what it holds.
        case namesNoCapacity
    }

    /// Where the gateway listens.
    private static let rpcPort = 7000
    private static let httpPort = 8000
    private static let instancePort = 7100
    /// Clients wait as long as the gateway lets them.
    private static let timeoutMicroseconds: UInt64 = 600_000_000

    let network: MemoryNetwork
    private let clientLoop: MemoryLoop
    private let loop: MemoryLoop
    private let model: EmulatedModel
    private let gateway: GatewayService
    private let instances: [FailingInstance]
    private let servers: [RPCServer]

    /// Instances that hold `slots` requests each.
    init(_ fault: Fault, instances count: Int, slots: Int, retries: RetryBudget.Limits, seed: UInt64) throws {
        model = try EmulatedModel("ling-2.6-flash")
        network = MemoryNetwork(seed: seed)
        clientLoop = network.makeLoop("client")
        loop = network.makeLoop("services")
        var instances: [FailingInstance] = []
        var servers: [RPCServer] = []
        for index in 0..<count {
            let instance = FailingInstance(fault, slots: slots, loop: loop)
            let identity = PeerIdentity(
                role: "attention", instanceID: "attention-\(index)", generation: 1, fingerprint: model.fingerprint)
            instances.append(instance)
            servers.append(RPCServer(loop: loop, identity: identity, secret: [1], roles: [], handler: instance))
        }
        (self.instances, self.servers) = (instances, servers)
        gateway = GatewayService(
            modelName: model.name, configuration: model.configuration, codec: nil,
            identity: PeerIdentity(role: "gateway", instanceID: "gateway-0", fingerprint: model.fingerprint),
            attention: try (0..<count).map {
                InstanceAddress(role: .both, address: try #require(HostPort("memory:\(Self.instancePort + $0)")))
            }, secret: [1], timeoutMicroseconds: 600_000_000, loop: loop, retries: retries)
        let started: Void? = try network.run(on: loop) { [self] in
            for (index, server) in self.servers.enumerated() {
                _ = try server.listen(host: "memory", port: Self.instancePort + index)
            }
            try await gateway.connect(timeoutMicroseconds: 10_000_000)
            _ = try gateway.listen(host: "memory", port: Self.rpcPort, clientSecret: [])
            _ = try gateway.listenHTTP(host: "memory", port: Self.httpPort)
        }
        try #require(started != nil, "the fleet did not start; seed \(seed)")
    }

    /// How often a request came to an instance.
    var placements: Int { instances.reduce(0) { $0 + $1.placements } }

    /// After a while the gateway hears nothing of the instances any more.
    func freezeSoon(microseconds: UInt64) {
        loop.schedule(afterMicroseconds: microseconds) { [self] in
            for index in instances.indices { network.freezeClients(of: Self.instancePort + index) }
        }
    }

    /// Sends `count` completions through the binary port, `atOnce` at a time; why each failed, nil for one that did not.
    func failures(count: Int, atOnce: Int) throws -> [RPCError?] {
        try withClient { client in
            await withTaskGroup(of: RPCError?.self) { group in
                var failures: [RPCError?] = []
                for index in 0..<count {
                    if index >= atOnce, let failure = await group.next() { failures.append(failure) }
                    group.addTask(executorPreference: client.loop) {
                        do {
                            _ = try await tokens(
                                client, request([1, 2, 3], 10), timeoutMicroseconds: Self.timeoutMicroseconds)
                        } catch { return error as? RPCError }
                        return nil
                    }
                }
                for await failure in group { failures.append(failure) }
                return failures
            }
        }
    }

    /// What the gateway counts.
    func counters() throws -> [String: Int64] { try withClient { try await ServiceTests.counters($0) } }

    /// The answer to a completion over HTTP: its status, its headers and its body.
    func complete() throws -> (status: Int, headers: [(name: String, value: String)], body: Data) {
        let answer = try network.run(on: clientLoop) { [self] in
            let client = HTTPClient(loop: clientLoop, host: "memory", port: Self.httpPort)
            defer { client.close() }
            let body = Array(#"{"prompt": [1, 2, 3], "max_tokens": 4}"#.utf8)
            let response = try await client.send(
                HTTPRequest(
                    method: "POST", path: "/v1/completions", headers: [("content-type", "application/json")],
                    body: body), timeoutMicroseconds: 60_000_000)
            return (status: response.status, headers: response.headers, body: Data(try await response.body()))
        }
        return try #require(answer, "seed \(network.seed)")
    }

    private func withClient<Value: Sendable>(
        _ body: @escaping @Sendable (RPCClient) async throws -> Value
    ) throws -> Value {
        let value = try network.run(on: clientLoop) { [self] in
            let client = RPCClient(
                loop: clientLoop, host: "memory", port: Self.rpcPort, identity: PeerIdentity(role: "client"),
                role: "gateway", fingerprint: "", secret: [])
            client.start()
            defer { client.close() }
            try await client.waitReady(timeoutMicroseconds: 10_000_000)
            return try await body(client)
        }
        return try #require(value, "nothing happened any more, or for an hour; seed \(network.seed)")
    }
}

/// One of them. Confined to its loop.
private final class FailingInstance: RPCHandler, @unchecked Sendable {
    private let fault: FailingFleet.Fault
    private let slots: Int
    private let loop: MemoryLoop
    private(set) var placements = 0

    init(_ fault: FailingFleet.Fault, slots: Int, loop: MemoryLoop) {
        self.fault = fault
        self.slots = slots
        self.loop = loop
    }

    func handle(_ call: ServerCall) async throws(RPCError) -> RPCPayload {
        guard call.method == .generateTokens else {
            let capacity = fault == .namesNoCapacity ? nil : Capacity(requests: slots, tokens: 64 * slots)
            return RPCPayload(metadata: StatusReply(counters: [:], capacity: capacity).encoded())
        }
        placements += 1
        switch fault {
        case .refused, .namesNoCapacity: throw RPCError(.notAccepted, "it is about to stop")
        case .brokenAfterAToken:
            let token = Token(id: 1, logprob: 0)
            try await call.send(RPCPayload(metadata: token.encoded()))
            throw RPCError(.unavailable, "its experts are gone")
        case .silence:
            while !Task.isCancelled { await loop.pause(microseconds: 100_000) }
            throw RPCError(.cancelled, "the caller is gone")
        case .standsStill:
            while !Task.isCancelled { try await sign(call, 7) }
            throw RPCError(.cancelled, "the caller is gone")
        case .worksLong:
            for second in 0..<180 as Range<UInt64> { try await sign(call, second) }
            return try await tokens(10, call)
        case .lostEnd:
            try await sign(call, 7)
            _ = try await tokens(10, call)
            while !Task.isCancelled { await loop.pause(microseconds: 100_000) }
            throw RPCError(.cancelled, "the caller is gone")
        }
    }

    private func sign(_ call: ServerCall, _ work: UInt64) async throws(RPCError) {
        try await call.send(RPCPayload(metadata: TokensPart.sign(work: work).encoded()))
        await loop.pause(microseconds: 1_000_000)
    }

    private func tokens(_ count: Int, _ call: ServerCall) async throws(RPCError) -> RPCPayload {
        let token = Token(id: 1, logprob: 0)
        for _ in 0..<count { try await call.send(RPCPayload(metadata: TokensPart.token(token).encoded())) }
        return RPCPayload(metadata: End(reason: .length, promptTokens: 3, completionTokens: count).encoded())
    }
}
