import Checkpoint
import HybridModel
import ServiceSupport

/// The check before services are started: whether their weights fit into this machine together.
enum LoadCheck {
    /// The same for one process that does everything.
    static func run(_ checkpoint: Checkpoint) throws {
        try ServiceInputs.checkMemory(
            CheckpointFootprint(checkpoint).weights(attentions: 1, experts: 1), placement: checkpoint.placement)
    }

    /// Says what a user should know; throws when the model does not fit.
    static func run(_ plan: ServiceSetPlan) throws {
        guard plan.emulation == nil else { return }
        let checkpoint = try Checkpoint(ModelFolder(plan.model))
        let footprint = CheckpointFootprint(checkpoint)
        let instances = plan.attentions + plan.prefills + plan.decodes
        let counted = plan.slots * footprint.bytesPerRequest + plan.kvTokens * footprint.bytesPerToken
        let snapshots = plan.prefixCache?.snapshots(ofBytes: footprint.bytesPerRequest) ?? 0
        let kept = snapshots * footprint.bytesPerRequest
        try ServiceInputs.checkMemory(
            footprint.weights(attentions: instances, experts: plan.experts),
            stateBytes: instances * ((plan.stateMemory ?? counted) + kept),
            placement: try ServiceInputs.placement(plan.weights))
    }
}
