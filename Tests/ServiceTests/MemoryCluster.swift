import AttentionService
import Checkpoint
import ContentIdentity
import EventLoop
import EventLoopTesting
import ExpertsService
import Foundation
import GatewayService
import HybridModel
import Numerics
import RPC
import SamplerService
import Scheduling
import ServiceSupport
import Serving
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
        static let http = 8000
    }

    /// What the cluster is made of.
    struct Plan {
        var both = 1
        var prefill = 0
        var decode = 0
        var experts = 1
        /// Replicas of every experts shard, behind a name.
        var replicas = 1
        /// The gateway finds its instances by the names "prefill", "decode" and "both".
        var hasNames = false
        var prefillChunk = 512
        var slots = 4
        var pages = 32
        var leaseMicroseconds: UInt64 = 5_000_000
        var behaviour = MemoryNetwork.Behaviour()
        var limits: (inout SchedulerLimits) -> Void = { _ in }
        /// Another checkpoint, from which services may be started by mistake.
        var other: Checkpoint?
        /// Done before anything is connected.
        var prepare: (MemoryNetwork) throws -> Void = { _ in }

        /// Two instances of either kind, so that one may be killed.
        static var storm: Plan {
            var plan = Plan()
            (plan.both, plan.prefill, plan.decode, plan.slots, plan.pages) = (0, 2, 2, 8, 48)
            return plan
        }

        var roles: [Part] {
            Array(repeating: .both, count: both) + Array(repeating: .prefill, count: prefill)
                + Array(repeating: .decode, count: decode)
        }
    }

    let network: MemoryNetwork
    let clientLoop: MemoryLoop
    let plan: Plan
    private let loop: MemoryLoop
    private let checkpoint: Checkpoint
    private let contents: ContentManifest
    private let otherContents: ContentManifest?
    private let team = ThreadTeam(threadCount: 1)
    private let limits: SchedulerLimits
    private var gateway: GatewayService?
    private(set) var attention: [AttentionService] = []
    private var experts: [ExpertsService] = []
    private var sampler: SamplerService?
    private var generations: [Int: UInt64] = [:]

    init(_ checkpoint: Checkpoint, seed: UInt64, _ plan: Plan = Plan()) throws {
        self.plan = plan
        self.checkpoint = checkpoint
        contents = try checkpoint.contents()
        otherContents = try plan.other?.contents()
        network = MemoryNetwork(seed: seed, behaviour: plan.behaviour)
        clientLoop = network.makeLoop("client")
        loop = network.makeLoop("services")
        var limits = SchedulerLimits(
            rowsPerStep: plan.prefillChunk + plan.slots, prefillChunk: plan.prefillChunk, running: plan.slots,
            waiting: 64)
        limits.keepsPrefixes = true
        limits.snapshots = plan.slots
        plan.limits(&limits)
        self.limits = limits
        experts = try (0..<plan.experts * plan.replicas).map { try makeExperts($0) }
        for shard in 0..<plan.experts where plan.replicas > 1 { announceExperts(shard, Array(0..<plan.replicas)) }
        if plan.hasNames { announceInstances(Array(plan.roles.indices)) }
        sampler = try makeSampler()
        attention = try plan.roles.enumerated().map { try makeAttention($0, $1) }
        gateway = GatewayService(
            modelName: "tiny", configuration: checkpoint.configuration, codec: nil, identity: identity("gateway", 0),
            attention: try instances(), secret: [1, 2, 3],
            timeoutMicroseconds: 600_000_000, loop: loop)
        try plan.prepare(network)
        try start()
    }

    private static func address(_ port: Int, host: String = "127.0.0.1") throws -> HostPort {
        try #require(HostPort("\(host):\(port)"))
    }

    private func instances() throws -> [InstanceAddress] {
        guard plan.hasNames else {
            return try plan.roles.enumerated().map { index, role in
                InstanceAddress(role: role, address: try Self.address(Port.attention + index))
            }
        }
        let roles = [Part.both, .prefill, .decode].filter(plan.roles.contains)
        return try roles.map {
            InstanceAddress(role: $0, address: try Self.address(Port.attention, host: $0.rawValue))
        }
    }

    /// From now on the names of the roles stand for these instances.
    func announceInstances(_ indices: [Int]) {
        for role in [Part.both, .prefill, .decode] {
            let addresses = indices.filter { plan.roles[$0] == role }.map { index in
                network.assign("10.1.0.\(index + 1):\(Port.attention)", port: Port.attention + index)
                return "10.1.0.\(index + 1)"
            }
            network.setAddresses(of: role.rawValue, addresses)
        }
    }

    /// From now on the name of the shard stands for these of its replicas.
    func announceExperts(_ shard: Int, _ replicas: [Int]) {
        let addresses = replicas.map { replica in
            let address = "10.2.\(shard).\(replica + 1)"
            network.assign("\(address):\(Port.experts)", port: Port.experts + expertsIndex(shard, replica))
            return address
        }
        network.setAddresses(of: "experts-\(shard)", addresses)
    }

    /// Shards come before replicas, so that without replicas an index is a shard.
    private func expertsIndex(_ shard: Int, _ replica: Int) -> Int { replica * plan.experts + shard }

    /// Ends a replica as a crash would.
    func killExperts(_ shard: Int, _ replica: Int) {
        let index = expertsIndex(shard, replica)
        experts[index].close()
        network.cut(port: Port.experts + index)
    }

    /// Starts a replica again, by mistake from the other checkpoint when told so.
    func restartExperts(_ shard: Int, _ replica: Int, fromOther: Bool = false) async throws {
        let index = expertsIndex(shard, replica)
        experts[index] = try makeExperts(index, fromOther: fromOther)
        _ = try await experts[index].listen(host: "memory", port: Port.experts + index, secret: [1, 2, 3])
    }

    /// Ends the sampler as a crash would.
    func killSampler() {
        sampler?.close()
        network.cut(port: Port.sampler)
    }

    /// Starts the sampler again.
    func restartSampler() async throws {
        sampler = try makeSampler()
        _ = try await sampler?.listen(host: "memory", port: Port.sampler, secret: [1, 2, 3])
    }

    private func makeSampler() throws -> SamplerService {
        SamplerService(
            model: try HeadModel(checkpoint: checkpoint, team: team, maximumRows: 64),
            fingerprint: checkpoint.fingerprint, contents: contents, instanceID: "sampler-0",
            loop: network.makeLoop("sampler-0"))
    }

    private func identity(
        _ role: String, _ index: Int, generation: UInt64 = 1, fromOther: Bool = false
    ) -> PeerIdentity {
        PeerIdentity(
            role: role, instanceID: "\(role)-\(index)-\(generation)", generation: generation,
            fingerprint: checkpoint(fromOther).fingerprint, contents: fromOther ? otherContents : contents)
    }

    private func checkpoint(_ isOther: Bool) -> Checkpoint { isOther ? plan.other ?? checkpoint : checkpoint }

    private func makeExperts(_ index: Int, fromOther: Bool = false) throws -> ExpertsService {
        let model = try ExpertsModel(
            checkpoint: checkpoint(fromOther), shard: ExpertShard(index: index % plan.experts, count: plan.experts),
            team: team,
            maximumRows: limits.rowsPerStep)
        return ExpertsService(
            model: model, fingerprint: checkpoint(fromOther).fingerprint,
            contents: fromOther ? otherContents : contents, instanceID: "experts-\(index)",
            loop: network.makeLoop("experts-\(index)"))
    }

    private func makeAttention(
        _ index: Int, _ role: Part, generation: UInt64 = 1, fromOther: Bool = false
    ) throws -> AttentionService {
        AttentionService(
            model: try AttentionModel(checkpoint: checkpoint(fromOther), team: team, maximumRows: limits.rowsPerStep),
            state: try StateMemory(
                configuration: checkpoint.configuration, slotCount: plan.slots + limits.snapshots + 1,
                pageCount: plan.pages + 1),
            limits: limits,
            identity: identity("attention", index, generation: generation, fromOther: fromOther),
            experts: try (0..<plan.experts).map {
                plan.replicas > 1
                    ? try Self.address(Port.experts, host: "experts-\($0)") : try Self.address(Port.experts + $0)
            },
            sampler: try Self.address(Port.sampler), secret: [1, 2, 3], role: role, dpRank: index,
            leaseMicroseconds: plan.leaseMicroseconds, loop: loop, hot: network.makeLoop("attention-\(index)"))
    }

    private func start() throws {
        let started: Void? = try network.run(on: loop) { [self] in
            for (index, service) in experts.enumerated() {
                _ = try await service.listen(host: "memory", port: Port.experts + index, secret: [1, 2, 3])
            }
            _ = try await sampler?.listen(host: "memory", port: Port.sampler, secret: [1, 2, 3])
            for (index, service) in attention.enumerated() {
                try await service.connect(timeoutMicroseconds: 10_000_000)
                _ = try service.listen(host: "memory", port: Port.attention + index)
            }
            try await gateway?.connect(timeoutMicroseconds: 10_000_000)
            _ = try gateway?.listen(host: "memory", port: Port.gateway, clientSecret: [])
            _ = try gateway?.listenHTTP(host: "memory", port: Port.http)
        }
        try #require(started != nil, "the cluster did not start within virtual time")
    }

    /// Ends an attention instance as a crash would: its listener and all its connections are gone at once.
    func kill(_ index: Int) {
        attention[index].close()
        network.cut(port: Port.attention + index)
        generations[index, default: 1] += 1
    }

    /// Starts an instance that was killed again, as a supervisor would: the same place, a newer generation, no memory; by
    /// mistake from the other checkpoint when told so.
    func restart(_ index: Int, fromOther: Bool = false) async throws {
        let service = try makeAttention(
            index, plan.roles[index], generation: generations[index, default: 1], fromOther: fromOther)
        attention[index] = service
        try await service.connect(timeoutMicroseconds: 10_000_000)
        let loop = loop
        try await Task(executorPreference: loop) {
            _ = try service.listen(host: "memory", port: Port.attention + index)
        }.value
    }

    /// A client of one attention instance.
    func makeAttentionClient(_ index: Int) -> RPCClient {
        RPCClient(
            loop: clientLoop, host: "memory", port: Port.attention + index, identity: PeerIdentity(role: "client"),
            role: "attention", fingerprint: checkpoint.fingerprint, secret: [1, 2, 3])
    }

    /// A client of the binary port, connected when `start` was called on `clientLoop`.
    func makeClient() -> RPCClient {
        RPCClient(
            loop: clientLoop, host: "memory", port: Port.gateway, identity: PeerIdentity(role: "client"),
            role: "gateway", fingerprint: "", secret: [])
    }

    /// Runs `body` with a connected client until it is done, within an hour of virtual time.
    func withClient<Value: Sendable>(_ body: @escaping @Sendable (RPCClient) async throws -> Value) throws -> Value {
        try with(makeClient(), body)
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

    /// Closes everything; afterwards the network holds no stream, no listener and no timer.
    func close() throws {
        _ = try network.run(on: loop) { [self] in
            gateway?.close()
            for service in attention { service.close() }
            for service in experts { service.close() }
            sampler?.close()
        }
        network.runUntilIdle()
        let left = [network.openStreamCount, network.listenerCount, network.eventCount]
        #expect(left == [0, 0, 0], "seed \(network.seed): streams, listeners and timers are left")
        network.close()
    }

    /// What must be gone once the cluster is closed and forgotten.
    var parts: [AnyObject] {
        var parts: [AnyObject] = [network, clientLoop, loop] + attention + experts
        if let gateway { parts.append(gateway) }
        if let sampler { parts.append(sampler) }
        return parts
    }
}
