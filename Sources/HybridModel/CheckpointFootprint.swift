import Checkpoint

/// What a checkpoint takes, counted from the headers of its files: no weight is read.
public struct CheckpointFootprint: Sendable, Equatable {
    /// Numbers of one stored type.
    public struct Format: Sendable, Equatable {
        /// Tensors of this type.
        public var tensorCount = 0
        /// Their bytes.
        public var byteCount = 0
    }

    /// Bytes of tensors by who loads them.
    public struct Bytes: Sendable, Equatable {
        /// Attention: embedding, both kinds of layers, dense MLPs, routers, norms.
        public var attention = 0
        /// Of these the embedding, of which a token reads one row.
        public var embedding = 0
        /// Routed experts of all layers.
        public var routed = 0
        /// Shared experts, which every experts service holds.
        public var shared = 0
        /// The sampler: last norm and output head.
        public var sampler = 0
        /// What nobody loads: MTP layers and tensors of other purposes.
        public var unused = 0
    }

    /// By stored type, as the files write it.
    public private(set) var formats: [String: Format] = [:]
    /// By service.
    public private(set) var bytes = Bytes()
    /// Weights of the decoder, without MTP layers and scales.
    public private(set) var parameterCount = 0
    /// Those of them that a token passes.
    public private(set) var activeParameterCount = 0
    /// fp32 recurrent states of one request.
    public let bytesPerRequest: Int
    /// fp32 latents of one token.
    public let bytesPerToken: Int
    private let expertCount: Int
    private let expertsPerToken: Int

    /// Counts.
    public init(_ checkpoint: Checkpoint) {
        let c = checkpoint.configuration
        (expertCount, expertsPerToken) = (c.expertCount, c.expertsPerToken)
        bytesPerRequest = 4 * c.linearLayers.count * c.headCount * c.headWidth * c.headWidth
        bytesPerToken = 4 * c.fullAttentionLayers.count * (c.latentWidth + c.ropeWidth)
        var routedCount = 0
        for (name, location) in checkpoint.tensors {
            let (entry, size) = (location.entry, location.entry.byteCount)
            formats[entry.storedType, default: Format()].tensorCount += 1
            formats[entry.storedType, default: Format()].byteCount += size
            let count = name.hasSuffix("weight_scale") ? 0 : entry.shape.reduce(1, *)
            if HeadModel.owns(name) {
                bytes.sampler += size
                parameterCount += count
            } else if AttentionModel.owns(name, layerCount: c.layerCount) {
                bytes.attention += size
                if name == "model.word_embeddings.weight" { bytes.embedding += size }
                parameterCount += count
            } else if ExpertsModel.owns(name, 0..<expertCount, layerCount: c.layerCount) {
                let isShared = name.contains(".shared_experts.")
                if isShared { bytes.shared += size } else { bytes.routed += size }
                parameterCount += count
                routedCount += isShared ? 0 : count
            } else {
                bytes.unused += size
            }
        }
        activeParameterCount = parameterCount - routedCount + routedCount / expertCount * expertsPerToken
    }

    /// Bytes of weights of one of `shards` experts services, the largest.
    public func expertsBytes(shards: Int) -> Int {
        bytes.routed / expertCount * ((expertCount + shards - 1) / shards) + bytes.shared
    }

    /// Bytes of weights that a token passes when it is decoded alone.
    public var bytesReadPerToken: Int {
        bytes.attention - bytes.embedding + bytes.sampler + bytes.shared + bytes.routed / expertCount * expertsPerToken
    }

    /// Bytes of weights of each process of a set of services on one machine.
    public func weights(attentions: Int, experts: Int) -> [Int] {
        Array(repeating: bytes.attention, count: attentions)
            + Array(repeating: expertsBytes(shards: experts), count: experts) + [bytes.sampler]
    }
}
