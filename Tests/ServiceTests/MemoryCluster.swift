import AttentionService
import Checkpoint
import EventLoop
import ExpertsService
import Foundation
import GatewayService
import HybridModel
import Numerics
import RPC
import SamplerService
import Scheduling
import ServiceSupport
import Testing
import WireProtocol

/// The four services as the executables wire them, on a network in memory with virtual time. What happens depends on
/// the seed and on nothing else.
final class MemoryCluster: @unchecked Sendable {
    /// Ports of the services.
    enum Port {
        static let gateway = 7000
        static let attention = 7100
        static let experts = 7200
        static let sampler = 7300
    }

    let network: MemoryNetwork
    let clientLoop: MemoryLoop
    private let loop: MemoryLoop
    private let gateway: GatewayService
    private let attention: AttentionService
    private let experts: [ExpertsService]
    private let sampler: SamplerService

    init(
        _ checkpoint: Checkpoint, seed: UInt64, experts expertsCount: Int = 1, prefillChunk: Int = 512, slots: Int = 4,
        behaviour: MemoryNetwork.Behaviour = MemoryNetwork.Behaviour()
    ) throws {
        network = MemoryNetwork(seed: seed, behaviour: behaviour)
        clientLoop = network.makeLoop("client")
        loop = network.makeLoop("services")
        let team = ThreadTeam(threadCount: 1)
        let limits = SchedulerLimits(
            rowsPerStep: prefillChunk + slots, prefillChunk: prefillChunk, running: slots, waiting: 64)
        let addresses = try (0..<expertsCount).map { try Self.address(Port.experts + $0) }
        let (loop, network) = (loop, network)
        experts = try (0..<expertsCount).map { index in
            let model = try ExpertsModel(
                checkpoint: checkpoint, shard: ExpertShard(index: index, count: expertsCount), team: team,
                maximumRows: limits.rowsPerStep)
            return ExpertsService(
                model: model, fingerprint: checkpoint.fingerprint, instanceID: "experts-\(index)", loop: loop,
                hot: network.makeLoop("experts-\(index)"))
        }
        sampler = SamplerService(
            model: try HeadModel(checkpoint: checkpoint, team: team, maximumRows: 64),
            fingerprint: checkpoint.fingerprint, instanceID: "sampler-0", loop: loop,
            hot: network.makeLoop("sampler-0"))
        attention = AttentionService(
            model: try AttentionModel(checkpoint: checkpoint, team: team, maximumRows: limits.rowsPerStep),
            state: try StateMemory(
                configuration: checkpoint.configuration, slotCount: slots + 1, pageCount: 8 * slots + 1),
            limits: limits,
            identity: PeerIdentity(
                role: "attention", instanceID: "attention-0", fingerprint: checkpoint.fingerprint),
            experts: addresses, sampler: try Self.address(Port.sampler), secret: [1, 2, 3], loop: loop,
            hot: network.makeLoop("attention-0"))
        gateway = GatewayService(
            modelName: "tiny", configuration: checkpoint.configuration, codec: nil,
            identity: PeerIdentity(role: "gateway", instanceID: "gateway-0", fingerprint: checkpoint.fingerprint),
            attention: [try Self.address(Port.attention)], secret: [1, 2, 3], timeoutMicroseconds: 600_000_000,
            loop: loop)
        try start()
    }

    private static func address(_ port: Int) throws -> HostPort { try #require(HostPort("memory:\(port)")) }

    private func start() throws {
        let started: Void? = try network.run(on: loop) { [self] in
            for (index, service) in experts.enumerated() {
                _ = try service.listen(host: "memory", port: Port.experts + index, secret: [1, 2, 3])
            }
            _ = try sampler.listen(host: "memory", port: Port.sampler, secret: [1, 2, 3])
            try await attention.connect(timeoutMicroseconds: 10_000_000)
            _ = try attention.listen(host: "memory", port: Port.attention)
            try await gateway.connect(timeoutMicroseconds: 10_000_000)
            _ = try gateway.listen(host: "memory", port: Port.gateway, clientSecret: [])
        }
        try #require(started != nil, "the cluster did not start within virtual time")
    }

    /// A client of the binary port, connected when `start` was called on `clientLoop`.
    func makeClient() -> RPCClient {
        RPCClient(
            loop: clientLoop, host: "memory", port: Port.gateway, identity: PeerIdentity(role: "client"),
            role: "gateway", fingerprint: "", secret: [])
    }

    /// Runs `body` with a connected client until it is done, within an hour of virtual time.
    func withClient<Value: Sendable>(_ body: @escaping @Sendable (RPCClient) async throws -> Value) throws -> Value {
        let client = makeClient()
        let value = try network.run(on: clientLoop) {
            client.start()
            defer { client.close() }
            try await client.waitReady(timeoutMicroseconds: 10_000_000)
            return try await body(client)
        }
        return try #require(value, "nothing happened any more, or for an hour; seed \(network.seed)")
    }

    /// Closes everything; afterwards the network holds no stream, no listener and no timer.
    func close() throws {
        _ = try network.run(on: loop) { [self] in
            gateway.close()
            attention.close()
            for service in experts { service.close() }
            sampler.close()
        }
        network.runUntilIdle()
    }
}
