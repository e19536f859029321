import FusedMoE
import StatePools

/// What the HBM of a device holds, as a sum.
public struct MemoryPlan: Sendable, Equatable {
    /// One kind of device.
    public struct Device: Sendable, Equatable {
        /// "attention and experts", "attention", "experts".
        public let name: String
        /// The parts, in bytes.
        public let parts: [(name: String, bytes: Int)]
        /// HBM that may be used, bytes.
        public let limit: Int

        /// All parts.
        public var total: Int { parts.reduce(0) { $0 + $1.bytes } }

        /// "routed experts 28.5 GiB + … = 45.1 GiB of 86.4 GiB".
        public var sum: String {
            parts.map { "\($0.name) \(MemoryPlan.text($0.bytes))" }.joined(separator: " + ")
                + " = \(MemoryPlan.text(total)) of \(MemoryPlan.text(limit)) usable HBM"
        }

        /// Part by part.
        public static func == (one: Self, other: Self) -> Bool {
            one.name == other.name && one.limit == other.limit
                && one.parts.elementsEqual(other.parts) { $0.name == $1.name && $0.bytes == $1.bytes }
        }
    }

    /// The kinds of devices; the first one holds the pools.
    public let devices: [Device]
    /// What the pools of one attention rank hold.
    public let pools: PoolCapacity
    /// Bytes per token and per request on one device.
    public let calculator: PoolCalculator

    /// Requests whose state one rank holds at once.
    public var requestsPerRank: Int { pools.requests }
    /// Tokens of KV one rank holds.
    public var tokensPerRank: Int { pools.tokens }

    /// Refuses a load that the pools do not hold, with the sum.
    ///
    /// - Throws: `DeploymentError` with code `.memory`.
    public func require(requestsPerRank: Int, tokensPerRequest: Int) throws(DeploymentError) {
        let requests = min(max(0, requestsPerRank), Self.mostRequests)
        let pages =
            (min(max(0, tokensPerRequest), Self.mostTokens) + PoolCalculator.pageTokens - 1)
            / PoolCalculator.pageTokens
        let tokens = requests * pages * PoolCalculator.pageTokens
        guard requests > pools.requests || tokens > pools.tokens else { return }
        let fixed = devices.first?.parts.filter { !$0.name.hasSuffix("pool") }.reduce(0) { $0 + $1.bytes } ?? 0
        let total =
            Double(fixed) + Double(requests) * Double(calculator.bytesPerRequest)
            + Double(tokens) * Double(calculator.bytesPerToken)
        throw DeploymentError(
            .memory,
            "\(requests) requests of \(tokensPerRequest) tokens on a rank do not fit: recurrent state "
                + "\(requests) × \(Self.text(calculator.bytesPerRequest)) + KV \(tokens) tokens × "
                + "\(Self.text(calculator.bytesPerToken)) + weights and workspace \(Self.text(fixed)) = "
                + "\(Self.text(Int(min(total, 1e18)))) of \(Self.text(devices.first?.limit ?? 0)) usable HBM; the pools "
                + "hold \(pools)")
    }

    /// Bounds of what can be asked for, so that sums stay within an `Int`.
    private static let (mostRequests, mostTokens) = (1 << 24, 1 << 30)

    static func text(_ bytes: Int) -> String {
        let units = ["B", "KiB", "MiB", "GiB", "TiB"]
        var (unit, scale) = (0, 1)
        while unit < 4, bytes / scale >= 1024 { (unit, scale) = (unit + 1, scale * 1024) }
        let tenths = Int((Double(bytes) / Double(scale) * 10).rounded())
        return tenths % 10 == 0 ? "\(tenths / 10) \(units[unit])" : "\(tenths / 10).\(tenths % 10) \(units[unit])"
    }
}
