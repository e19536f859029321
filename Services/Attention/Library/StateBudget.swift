import Checkpoint
import HybridModel
import ServiceSupport
import StatePools

extension StateShape {
    /// What a request of a model owns in this implementation: FP32 latents, recurrent states of whole heads.
    public init(_ configuration: ModelConfiguration) {
        self.init(
            latentLayers: configuration.fullAttentionLayers.count, latentWidth: configuration.latentWidth,
            ropeWidth: configuration.ropeWidth, latentElementBytes: 4,
            linearLayers: configuration.linearLayers.count, headCount: configuration.headCount,
            headWidth: configuration.headWidth)
    }
}

/// How much memory an attention instance sets aside for what requests own.
enum StateBudget {
    static let options = [
        CommandLineOption(
            "state-memory", value: "SIZE",
            help: "memory of recurrent states and KV together, such as 2GiB; sets --kv-tokens, and bounds --slots"),
        CommandLineOption(
            "state-ratio", value: "R", help: "recurrent : KV memory of --state-memory is R : 1", fallback: "0.9"),
    ]

    private static let maximumRequests = 4096
    private static let maximumTokens = 1 << 26

    /// The pools' sizes: by the budget where one is given, by the two counts otherwise.
    static func capacity(
        _ values: OptionValues, of configuration: ModelConfiguration
    ) throws -> PoolCapacity {
        let calculator = try PoolCalculator(shape: StateShape(configuration))
        guard values.text("state-memory") != nil else {
            return calculator.capacity(
                requests: try values.integer("slots", in: 1...maximumRequests),
                tokens: try values.integer("kv-tokens", in: 64...maximumTokens))
        }
        let bytes = try values.bytes("state-memory")
        let ratio = try values.number("state-ratio", in: 0.01...100)
        do throws(PoolBudgetError) {
            let split = try calculator.capacity(bytes: bytes, ratio: ratio)
            return calculator.capacity(
                requests: min(split.requests, maximumRequests), tokens: min(split.tokens, maximumTokens))
        } catch {
            throw UsageError("--state-memory: \(error)")
        }
    }
}
