/// What a request's state looks like on one side of a hand-off. Both sides must have the same (method prefill).
public struct StateLayout: Sendable, Equatable {
    /// MLA layers, each with latents per token.
    public var latentLayers: UInt32
    /// Floats of one token's latent, R + dr.
    public var latentFloats: UInt32
    /// Linear layers, each with a recurrent state per request.
    public var linearLayers: UInt32
    /// Floats of one layer's state, H * D * D.
    public var stateFloats: UInt32
    /// Type of the numbers; "f32".
    public var elementType: String

    /// A layout.
    public init(
        latentLayers: UInt32, latentFloats: UInt32, linearLayers: UInt32, stateFloats: UInt32,
        elementType: String = "f32"
    ) {
        self.latentLayers = latentLayers
        self.latentFloats = latentFloats
        self.linearLayers = linearLayers
        self.stateFloats = stateFloats
        self.elementType = elementType
    }

    /// One sentence with what differs, nil when nothing does.
    public func difference(from other: StateLayout) -> String? {
        let pairs: [(String, UInt32, UInt32)] = [
            ("MLA layers", latentLayers, other.latentLayers), ("latent floats", latentFloats, other.latentFloats),
            ("linear layers", linearLayers, other.linearLayers), ("state floats", stateFloats, other.stateFloats),
        ]
        var parts = pairs.filter { $0.1 != $0.2 }.map { "\($0.0) \($0.1) here, \($0.2) there" }
        if elementType != other.elementType { parts.append("type \(elementType) here, \(other.elementType) there") }
        return parts.isEmpty ? nil : "state layouts differ: " + parts.joined(separator: "; ")
    }
}

/// What a decode instance asks a prefill instance: compute this prompt and send its state (method prefill).
public struct PrefillRequest: Sendable, Equatable {
    /// Prompt ids.
    public var prompt: [UInt32]
    /// Name of the transfer, chosen by the decode instance, for logs on both sides.
    public var transfer: UInt64
    /// Generation of the decode instance's reservation; every segment carries it back.
    public var generation: UInt64
    /// What the decode instance's memory looks like.
    public var layout: StateLayout
    /// True to sample the token after the prompt.
    public var samples: Bool
    /// Sampling of that token.
    public var sampling: SamplingOptions
    /// Logprobs wanted besides the token's own.
    public var topLogprobs: UInt8
    /// Higher goes first.
    public var priority: UInt8
    /// Ids that must not be chosen.
    public var banned: [UInt32]

    /// A request.
    public init(
        prompt: [UInt32], transfer: UInt64, generation: UInt64, layout: StateLayout, samples: Bool,
        sampling: SamplingOptions, topLogprobs: UInt8, priority: UInt8 = 0, banned: [UInt32] = []
    ) {
        self.banned = banned
        self.prompt = prompt
        self.transfer = transfer
        self.generation = generation
        self.layout = layout
        self.samples = samples
        self.sampling = sampling
        self.topLogprobs = topLogprobs
        self.priority = priority
    }

    /// Metadata of the request frame.
    public func encoded() -> [UInt8] {
        var writer = FieldWriter()
        writer.put(1, array: prompt)
        writer.put(2, transfer)
        writer.put(3, generation)
        writer.put(4, array: [layout.latentLayers, layout.latentFloats, layout.linearLayers, layout.stateFloats])
        writer.put(5, layout.elementType)
        writer.put(6, UInt8(samples ? 1 : 0))
        writer.put(7, topLogprobs)
        writer.put(8, priority)
        if !banned.isEmpty { writer.put(0x8000 | 9, array: banned) }
        sampling.encode(into: &writer)
        return writer.bytes
    }

    /// Parses metadata.
    public init(decoding bytes: [UInt8]) throws(WireError) {
        let reader = try FieldReader(bytes, known: 1...63)
        prompt = try reader.array(1, "prompt", limit: MessageLimits.promptTokens)
        guard !prompt.isEmpty else { throw WireError("prompt is empty") }
        transfer = try reader.integer(2, "transfer")
        generation = try reader.integer(3, "generation")
        let words: [UInt32] = try reader.array(4, "state layout", limit: 4)
        guard words.count == 4 else { throw WireError("state layout has \(words.count) numbers, not 4") }
        layout = StateLayout(
            latentLayers: words[0], latentFloats: words[1], linearLayers: words[2], stateFloats: words[3],
            elementType: try reader.text(5, "state type", limit: 16) ?? "f32")
        samples = try reader.integer(6, "samples", fallback: UInt8(1)) != 0
        topLogprobs = try reader.integer(7, "logprobs", fallback: 0)
        guard topLogprobs <= MessageLimits.topLogprobs else {
            throw WireError("logprobs must be at most \(MessageLimits.topLogprobs), not \(topLogprobs)")
        }
        priority = try reader.integer(8, "priority", fallback: 0)
        banned = try reader.array(9, "banned", limit: 2 * MessageLimits.stopTokens)
        sampling = try SamplingOptions(decoding: reader)
    }
}

/// A part of a request's state (method prefill). The body is f32: [count, R + dr] latents of one MLA layer, or one
/// linear layer's [H, D, D] state; a sign of life has none.
public struct StateSegment: Sendable, Equatable {
    /// What the body is.
    public enum Kind: UInt8, Sendable {
        /// Nothing: the prefill instance is alive and has computed `count` tokens.
        case progress = 0
        /// Latents of the tokens `first ..< first + count` of one MLA layer.
        case latents = 1
        /// The state of one linear layer after the whole prompt.
        case state = 2
    }

    /// What the body is.
    public var kind: Kind
    /// Layer of the model.
    public var layer: UInt32
    /// First token.
    public var first: UInt32
    /// Tokens.
    public var count: UInt32
    /// The generation of the request.
    public var generation: UInt64

    /// A segment.
    public init(kind: Kind, layer: UInt32, first: UInt32, count: UInt32, generation: UInt64) {
        self.kind = kind
        self.layer = layer
        self.first = first
        self.count = count
        self.generation = generation
    }

    /// Metadata of the item frame.
    public func encoded() -> [UInt8] {
        var writer = FieldWriter()
        writer.put(1, kind.rawValue)
        writer.put(2, array: [layer, first, count])
        writer.put(3, generation)
        return writer.bytes
    }

    /// Parses metadata.
    public init(decoding bytes: [UInt8]) throws(WireError) {
        let reader = try FieldReader(bytes, known: 1...3)
        guard let kind = Kind(rawValue: try reader.integer(1, "segment kind")) else {
            throw WireError("segment kind is unknown")
        }
        let words: [UInt32] = try reader.array(2, "segment", limit: 3)
        guard words.count == 3 else { throw WireError("segment has \(words.count) numbers, not 3") }
        guard words[1] <= MessageLimits.promptTokens, words[2] <= MessageLimits.promptTokens else {
            throw WireError("segment names tokens beyond \(MessageLimits.promptTokens)")
        }
        self.init(
            kind: kind, layer: words[0], first: words[1], count: words[2],
            generation: try reader.integer(3, "generation"))
    }

    /// Bytes its body must have under `layout`.
    public func byteCount(_ layout: StateLayout) -> Int {
        switch kind {
        case .progress: 0
        case .latents: 4 * Int(count) * Int(layout.latentFloats)
        case .state: 4 * Int(layout.stateFloats)
        }
    }
}

/// The end of a hand-off (method prefill).
public struct PrefillEnd: Sendable, Equatable {
    /// The token after the prompt, when it was asked for.
    public var token: TokensItem?
    /// Segments that were sent, signs of life not counted.
    public var segments: UInt32
    /// Microseconds from the arrival of the call to its first step.
    public var queuedMicroseconds: UInt64
    /// Microseconds from its first step to the token.
    public var computedMicroseconds: UInt64

    /// An end.
    public init(token: TokensItem?, segments: UInt32, queuedMicroseconds: UInt64, computedMicroseconds: UInt64) {
        self.token = token
        self.segments = segments
        self.queuedMicroseconds = queuedMicroseconds
        self.computedMicroseconds = computedMicroseconds
    }

    /// Metadata of the end frame.
    public func encoded() -> [UInt8] {
        var writer = FieldWriter()
        if let token { writer.put(1, token.encoded()) }
        writer.put(2, segments)
        writer.put(3, queuedMicroseconds)
        writer.put(4, computedMicroseconds)
        return writer.bytes
    }

    /// Parses metadata.
    public init(decoding bytes: [UInt8]) throws(WireError) {
        let reader = try FieldReader(bytes, known: 1...4)
        token = try reader.data(1).map { (bytes) throws(WireError) in try TokensItem(decoding: Array(bytes)) }
        segments = try reader.integer(2, "segments")
        queuedMicroseconds = try reader.integer(3, "queued", fallback: 0)
        computedMicroseconds = try reader.integer(4, "computed", fallback: 0)
    }
}
