import EventLoop
import HybridModel
import Observability
import RPC
import Scheduling
import ServiceSupport
import Serving
import WireProtocol

extension AttentionService {
    /// A service in which all data-parallel ranks of a slice go in lockstep, without weights and without state, at the pace
    /// that is handed in; otherwise as the one with a model.
    public convenience init(
        _ instance: PacedInstance, identity: PeerIdentity, experts: [HostPort], sampler: HostPort, secret: [UInt8],
        role: Part = .both, firstRank: Int = 0, leaseMicroseconds: UInt64 = 5_000_000, loop: any Loop,
        hot: any Loop, logger: Logger? = nil, onRecord: @escaping @Sendable (TransferRecord) -> Void = { _ in },
        onChange: @escaping @Sendable (String, Discovery.Change) -> Void = { _, _ in }
    ) {
        var limits = instance.limits
        limits.expectedTokens = SchedulerLimits.servedExpectedTokens
        let group = Ranks(
            limits: limits, ranks: instance.ranks, slotCount: instance.slots, pageCount: instance.pages,
            firstRank: firstRank)
        let link = PeerLink(loop: hot, identity: identity, secret: secret, onChange: onChange)
        let shards = link.shards(
            experts, rows: instance.elidesBodies ? instance.rowsPerStep : PacedComputation.rowsPerBody)
        let samplers = link.replicas("sampler", sampler, role: "sampler", rows: PacedComputation.rowsPerBody)
        self.init(
            Parts(
                group: group, map: Self.map(instance),
                memory: [
                    "weight_bytes": 0, "state_bytes": 0, "scratch_bytes": 0,
                    "rows_per_step": Int64(instance.rowsPerStep),
                ],
                chain: ServiceChain(experts: shards, sampler: samplers)),
            PacedComputation(instance, experts: shards, sampler: samplers, loop: hot),
            identity: identity, secret: secret, role: role, leaseMicroseconds: leaseMicroseconds, loop: loop, hot: hot,
            logger: logger, onRecord: onRecord)
    }

    private static func map(_ instance: PacedInstance) -> StateMap {
        let c = instance.configuration
        return StateMap(
            content: instance.elidesBodies ? .none : .zeros,
            layout: StateLayout(
                latentLayers: UInt32(c.fullAttentionLayers.count), latentFloats: UInt32(c.latentWidth + c.ropeWidth),
                linearLayers: UInt32(c.linearLayers.count),
                stateFloats: UInt32(c.headCount * c.headWidth * c.headWidth)),
            places: LayerPlace.places(of: c), fingerprint: instance.fingerprint)
    }
}

extension SchedulerLimits {
    /// What a request without a limit of its own is expected to generate, at most. The gateway expects the same.
    static let servedExpectedTokens = 4096
}
