import AttentionService
import ServiceSupport

/// What `up` and `generate` need to know about the services they start.
struct ServiceSetPlan: Sendable {
    var model: String
    var experts = 1
    /// Attention instances that take both parts of a request, only prompts, or only generation.
    var attentions = 1
    var prefills = 0
    var decodes = 0
    var prefillChunk = ComputedDefaults.chunk
    var threads = ServiceProcess.defaultThreads
    var decay = "a"
    /// `--weights` of every service.
    var weights = "auto"
    /// `--digest-cache` of every service.
    var digestCache: String?
    var host = "127.0.0.1"
    var rpcPort = 0
    var httpPort = 0
    var usesBytes = false
    /// How long the gateway may take to finish its streams at a stop.
    var drainSeconds = 30
    /// Options handed to the gateway as they are.
    var gatewayArguments: [String] = []
    /// Options handed to every attention instance as they are.
    var attentionArguments: [String] = []
    var isQuiet = false
    var slots = ComputedDefaults.slots
    var kvTokens = ComputedDefaults.tokens
    /// Bytes of an instance's states, where they are given instead of the two counts.
    var stateMemory: Int?
    /// Recurrent states that are kept besides, by the bytes of one.
    var prefixCache: PrefixCacheOption?
    var logLevel = "info"
    var clientSecretFile: String?
    /// First of the ports of `/metrics` of sampler, experts, attention and gateway; 0 for none.
    var metricsPort = 0
    /// True for ports of `/metrics` that are free, where `metricsPort` names none.
    var servesMetrics = false
    /// What is emulated; nil computes.
    var emulation: Emulation?

    /// What the other services have to know of an emulated deployment.
    struct Emulation: Sendable {
        /// Data-parallel ranks of an instance.
        var ranks: Int
        var slice: String
        var expertDevices: Int
    }
}
