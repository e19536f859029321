import DeploymentModel
import Emulation
import EventLoop
import HybridModel
import RPC
import Scheduling
import ServiceSupport
import ServingSimulator
import WireProtocol

extension AttentionService {
    /// A service in which all data-parallel ranks of a simulated slice go in lockstep, without weights and without
    /// state; otherwise as the one with a model.
    public convenience init(
        emulating model: EmulatedModel, serving: ServingDeployment, speedup: Double = 1, identity: PeerIdentity,
        experts: [HostPort], sampler: HostPort, secret: [UInt8], role: InstanceRole = .both, firstRank: Int = 0,
        loop: any Loop, hot: any Loop
    ) {
        self.init(
            emulating: EmulatedComputation.Plan(model: model, serving: serving, speedup: speedup),
            identity: identity, experts: experts, sampler: sampler, secret: secret, role: role, firstRank: firstRank,
            leaseMicroseconds: 5_000_000, loop: loop, hot: hot)
    }

    convenience init(
        emulating plan: EmulatedComputation.Plan, identity: PeerIdentity, experts: [HostPort], sampler: HostPort,
        secret: [UInt8], role: InstanceRole, firstRank: Int, leaseMicroseconds: UInt64, loop: any Loop, hot: any Loop,
        onRecord: @escaping @Sendable (TransferRecord) -> Void = { _ in },
        onChange: @escaping @Sendable (String, Discovery.Change) -> Void = { _, _ in }
    ) {
        let serving = plan.serving
        let group = Ranks(
            limits: serving.limits.faster(by: plan.speedup), ranks: serving.ranks, slotCount: serving.slots,
            pageCount: serving.pages, firstRank: firstRank)
        let rows = serving.ranks * serving.limits.rowsPerStep
        let link = PeerLink(loop: hot, identity: identity, secret: secret, onChange: onChange)
        let shards = link.shards(experts, rows: plan.elidesBodies ? rows : EmulatedComputation.rowsPerBody)
        let samplers = link.replicas("sampler", sampler, role: "sampler", rows: EmulatedComputation.rowsPerBody)
        self.init(
            Parts(
                computation: EmulatedComputation(plan, experts: shards, sampler: samplers, loop: hot),
                group: group, map: Self.map(plan),
                memory: ["weight_bytes": 0, "state_bytes": 0, "scratch_bytes": 0, "rows_per_step": Int64(rows)],
                chain: ServiceChain(experts: shards, sampler: samplers)),
            identity: identity, secret: secret, role: role, leaseMicroseconds: leaseMicroseconds, loop: loop, hot: hot,
            onRecord: onRecord)
    }

    private static func map(_ plan: EmulatedComputation.Plan) -> StateMap {
        let c = plan.model.configuration
        return StateMap(
            content: plan.elidesBodies ? .none : .zeros,
            layout: StateLayout(
                latentLayers: UInt32(c.fullAttentionLayers.count), latentFloats: UInt32(c.latentWidth + c.ropeWidth),
                linearLayers: UInt32(c.linearLayers.count),
                stateFloats: UInt32(c.headCount * c.headWidth * c.headWidth)),
            places: LayerPlace.places(of: c), fingerprint: plan.model.fingerprint)
    }
}

extension SchedulerLimits {
    /// What a request without a limit of its own is expected to generate, at most. The gateway expects the same.
    static let servedExpectedTokens = 4096

    /// The same limits where emulated time runs `factor` times faster than real time. The wait for memory is the
    /// client's time and stays.
    func faster(by factor: Double) -> SchedulerLimits {
        var limits = self
        limits.gatherMicroseconds = UInt64(Double(gatherMicroseconds) / max(1e-6, factor))
        limits.gatherLimitMicroseconds = UInt64(Double(gatherLimitMicroseconds) / max(1e-6, factor))
        limits.expectedTokens = Self.servedExpectedTokens
        return limits
    }
}
