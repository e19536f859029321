import AttentionService
import Emulation
import EventLoop
import EventLoopTesting
import ExpertsService
import Foundation
import GatewayService
import HybridModel
import LoadTesting
import RPC
import SamplerService
import Scheduling
import ServiceSupport
import Serving
import ServingSimulator
import Testing
import WireProtocol

/// The four services emulating a deployment, on a network in memory: their clock is the network's virtual one, so hours
/// pass in seconds and what happens depends on the seed alone.
final class EmulatedCluster: @unchecked Sendable {
    static let httpPort = 8000

    let network: MemoryNetwork
    let clientLoop: MemoryLoop
    let serving: ServingDeployment
    let roles: [Part]
    private let loop: MemoryLoop
    private let gateway: GatewayService
    private let attention: [AttentionService]
    private let experts: ExpertsService
    private let sampler: SamplerService

    init(
        _ model: EmulatedModel, _ serving: ServingDeployment, roles: [Part] = [.both], speedup: Double = 1,
        seed: UInt64
    ) throws {
        self.serving = serving
        self.roles = roles
        var behaviour = MemoryNetwork.Behaviour()
        behaviour.delayMicroseconds = 5...50
        network = MemoryNetwork(seed: seed, behaviour: behaviour)
        clientLoop = network.makeLoop("client")
        loop = network.makeLoop("services")
        experts = ExpertsService(
            emulating: model, shard: ExpertShard(index: 0, count: 1), instanceID: "experts-0",
            loop: network.makeLoop("experts"))
        sampler = SamplerService(emulating: model, instanceID: "sampler-0", loop: network.makeLoop("sampler"))
        var attention: [AttentionService] = []
        for (index, role) in roles.enumerated() {
            let hot = network.makeLoop("attention-\(index)")
            attention.append(
                AttentionService(
                    PacedInstance(emulating: model, serving: serving, speedup: speedup, loop: hot),
                    identity: PeerIdentity(
                        role: "attention", instanceID: "attention-\(index)", fingerprint: model.fingerprint),
                    experts: [try Self.address(7200)], sampler: try Self.address(7300), secret: [1], role: role,
                    firstRank: index * serving.ranks, loop: loop, hot: hot))
        }
        self.attention = attention
        gateway = GatewayService(
            modelName: model.servedName, configuration: model.configuration, codec: nil,
            identity: PeerIdentity(role: "gateway", instanceID: "gateway-0", fingerprint: model.fingerprint),
            attention: try roles.enumerated().map { index, role in
                InstanceAddress(role: role, address: try Self.address(7100 + index))
            }, secret: [1], timeoutMicroseconds: 3_600_000_000, loop: loop, isEmulated: true)
        try start()
    }

    private static func address(_ port: Int) throws -> HostPort { try #require(HostPort("memory:\(port)")) }

    private func start() throws {
        let started: Void? = try network.run(on: loop) { [self] in
            _ = try await experts.listen(host: "memory", port: 7200, secret: [1])
            _ = try await sampler.listen(host: "memory", port: 7300, secret: [1])
            for (index, service) in attention.enumerated() {
                try await service.connect(timeoutMicroseconds: 10_000_000)
                _ = try service.listen(host: "memory", port: 7100 + index)
            }
            try await gateway.connect(timeoutMicroseconds: 10_000_000)
            _ = try gateway.listen(host: "memory", port: 7000, clientSecret: [])
            _ = try gateway.listenHTTP(host: "memory", port: Self.httpPort)
        }
        try #require(started != nil, "the cluster did not start within virtual time")
    }

    /// Puts a load on the gateway's binary port as `ironling load` does, and returns what was measured.
    func measure(_ load: ServingLoad) throws -> [RequestRecord] {
        let client = RPCClient(
            loop: clientLoop, host: "memory", port: 7000, identity: PeerIdentity(role: "client"), role: "gateway",
            fingerprint: "", secret: [])
        return try with(client) { try await VirtualLoad(load, $0).run() }
    }

    /// Runs `body` with `client`, connected, until it is done, within an hour of virtual time.
    func with<Value: Sendable>(
        _ client: RPCClient, _ body: @escaping @Sendable (RPCClient) async throws -> Value
    ) throws -> Value {
        let value = try network.run(on: clientLoop) {
            client.start()
            defer { client.close() }
            try await client.waitReady(timeoutMicroseconds: 10_000_000)
            return try await body(client)
        }
        return try #require(value, "nothing happened any more, or for an hour; seed \(network.seed)")
    }

    func counters(of index: Int) throws -> [String: Int64] {
        let service = attention[index]
        return try #require(try network.run(on: loop) { await service.counters() })
    }

    func close() throws {
        _ = try network.run(on: loop) { [self] in
            gateway.close()
            for service in attention { service.close() }
            experts.close()
            sampler.close()
        }
        network.runUntilIdle()
        network.close()
    }
}

/// A load as `LoadController` decides it, in virtual time. Confined to the client's loop.
private final class VirtualLoad: @unchecked Sendable {
    private let load: ServingLoad
    private let client: RPCClient
    private var controller: LoadController
    private var records: [RequestRecord] = []
    private var failure: (any Error)?
    private let waiters = Waiters()
    private let start: UInt64

    init(_ load: ServingLoad, _ client: RPCClient) {
        self.load = load
        self.client = client
        controller = LoadController(due: load.due, limit: load.limit)
        start = client.loop.now
    }

    private var now: UInt64 { client.loop.now - start }

    func run() async throws -> [RequestRecord] {
        pump()
        await waiters.wait { !self.controller.isDone && self.failure == nil }
        if let failure { throw failure }
        return records.sorted { $0.index < $1.index }
    }

    private func pump() {
        let step = controller.advance(to: now)
        for index in step.send {
            Task.immediate(executorPreference: client.loop) { await self.send(index) }
        }
        guard let wake = step.wakeAt else { return }
        client.loop.schedule(afterMicroseconds: wake > now ? wake - now : 0) { self.pump() }
    }

    private func send(_ index: Int) async {
        let (input, output) = load.workload.lengths(at: index)
        var record = RequestRecord(index: index, due: controller.due[index], sent: now, inputTokens: input)
        do {
            let stream = try await client.stream(
                .generate, RPCPayload(metadata: request(Array(repeating: 65, count: input), output).encoded()),
                timeoutMicroseconds: 3_600_000_000)
            while let payload = try await stream.next() {
                let count = try GenerateItem(decoding: payload.metadata).tokens.count
                if count > 0 { record.add(tokens: count, at: now) }
            }
        } catch { failure = error }
        record.ended = now
        records.append(record)
        controller.finished()
        pump()
        waiters.wake()
    }
}
