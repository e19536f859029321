import GatewayService
import ServiceSupport

/// What the command `ironling` hands to the services it starts, so that none of them holds a simulator: emulated models in
/// the place of checkpoints, and simulated devices that calls are timed on.
public enum ServiceEmulation {
    /// The model that the gateway's command line asks to be emulated.
    ///
    /// - Throws: `UsageError` or `CheckpointError` with the sentence to print.
    public static func gateway(_ values: OptionValues) throws -> ServedModel {
        let model = try EmulatedModel(try values.required("model"))
        return ServedModel(
            emulating: model.servedName, configuration: model.configuration, fingerprint: model.fingerprint)
    }
}
