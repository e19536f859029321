/// Whether weights fit into the memory of this machine, before any is loaded.
public struct MemoryFit: Sendable, Equatable {
    /// The answer.
    public enum Verdict: String, Sendable {
        /// All are copied.
        case fits
        /// They are mapped, and read from disk as they are needed.
        case maps
        /// They are to be copied and cannot be.
        case exceeds = "does not fit"
    }

    /// Bytes of weights of each process on this machine.
    public let weights: [Int]
    /// Bytes for what requests own, in all of them.
    public let stateBytes: Int
    /// What the machine has.
    public let memory: MachineMemory
    /// Where the weights are to be put.
    public let placement: WeightPlacement

    /// The question.
    public init(weights: [Int], stateBytes: Int, memory: MachineMemory, placement: WeightPlacement) {
        (self.weights, self.stateBytes, self.memory, self.placement) = (weights, stateBytes, memory, placement)
    }

    /// Bytes of all weights.
    public var weightBytes: Int { weights.reduce(0, +) }

    /// The answer. Unless told otherwise, a process maps weights that take more than half of what is available.
    public var verdict: Verdict {
        let isEnough = weightBytes <= memory.available
        switch placement {
        case .mapped: return isEnough ? .fits : .maps
        case .copied: return isEnough ? .fits : .exceeds
        case .automatic:
            guard isEnough else { return .exceeds }
            return weights.allSatisfy { $0 <= memory.available / 2 } ? .fits : .maps
        }
    }

    /// What a user should know before loading, and can do about it; nil when all fits.
    public var sentence: String? {
        let (needed, left) = (Self.gibibytes(weightBytes), Self.gibibytes(memory.available))
        let origin = memory.isLimited ? " below this container's limit" : ""
        switch (verdict, placement) {
        case (.exceeds, _):
            return "the weights need \(needed), and \(left) of memory are available\(origin): the model does not fit. "
                + "--weights map starts all the same and reads weights from disk again and again; ironling quantize halves "
                + "BF16 weights; experts can be spread over more machines (ironling-experts --shard I --shards N)"
        case (.maps, .mapped):
            return
                "the weights need \(needed), and \(left) of memory are available\(origin): they are mapped, and what "
                + "does not fit is read from disk again at every step"
        case (.maps, _):
            return
                "the weights of a service take more than half of the \(left) of memory that are available\(origin), so "
                + "they are mapped and not copied (--weights copy copies them): first steps read from disk"
        case (.fits, _):
            guard weightBytes + stateBytes > memory.available else { return nil }
            return
                "weights (\(needed)) and the state of requests (up to \(Self.gibibytes(stateBytes))) need more than the "
                + "\(left) of memory that are available\(origin): take fewer --slots or --kv-tokens, or less "
                + "--state-memory"
        }
    }

    /// Bytes as people read them.
    public static func gibibytes(_ bytes: Int) -> String {
        let units = ["B", "KiB", "MiB", "GiB", "TiB"]
        var (value, unit) = (Double(bytes), 0)
        while value >= 1024, unit < units.count - 1 {
            value /= 1024
            unit += 1
        }
        guard unit > 0 else { return "\(bytes) B" }
        let tenths = Int((value * 10).rounded())
        return "\(tenths / 10).\(tenths % 10) \(units[unit])"
    }
}
