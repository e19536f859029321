import Serving

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
    /// The request; with 1 for `maximumTokens` the token after the prompt is sampled, with 0 it is not.
    public var request: Request
    /// Name of the transfer, chosen by the decode instance, for logs on both sides.
    public var transfer: UInt64
    /// Generation of the decode instance's reservation; every segment carries it back.
    public var generation: UInt64
    /// What the decode instance's memory looks like.
    public var layout: StateLayout
    /// First token whose latents are wanted; the decode instance has those before it.
    public var first: Int

    /// A message.
    public init(_ request: Request, transfer: UInt64, generation: UInt64, layout: StateLayout, first: Int = 0) {
        self.request = request
        self.transfer = transfer
        self.generation = generation
        self.layout = layout
        self.first = first
    }

    /// Metadata of the request frame.
    public func encoded() -> [UInt8] {
        var writer = FieldWriter()
        request.encode(into: &writer)
        writer.put(10, transfer)
        writer.put(11, generation)
        writer.put(12, array: [layout.latentLayers, layout.latentFloats, layout.linearLayers, layout.stateFloats])
        writer.put(13, layout.elementType)
        if first > 0 { writer.put(0x8000 | 15, UInt32(clamping: first)) }
        return writer.bytes
    }

    /// Parses metadata.
    ///
    /// - Throws: `WireError` that names the field.
    public init(decoding bytes: [UInt8]) throws(WireError) {
        let reader = try FieldReader(bytes, known: 1...15, Sampling.tags)
        request = try Request(decoding: reader, 0...1)
        transfer = try reader.integer(10, "transfer")
        generation = try reader.integer(11, "generation")
        let words: [UInt32] = try reader.array(12, "state layout", limit: 4)
        guard words.count == 4 else { throw WireError("state layout has \(words.count) numbers, not 4") }
        layout = StateLayout(
            latentLayers: words[0], latentFloats: words[1], linearLayers: words[2], stateFloats: words[3],
            elementType: try reader.text(13, "state type", limit: 16) ?? "f32")
        first = try reader.count(15, "first token", in: 0...request.promptCount - 1, fallback: 0)
        guard first % Block.tokens == 0 else { throw WireError("first token must be a multiple of 64, not \(first)") }
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
    ///
    /// - Throws: `WireError` that names the field.
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
    public var token: Token?
    /// Segments that were sent, signs of life not counted.
    public var segments: UInt32
    /// Tokens of the prompt whose state was kept and not computed again.
    public var cachedTokens: Int
    /// Microseconds from the arrival of the call to its first step.
    public var queuedMicroseconds: UInt64
    /// Microseconds from its first step to the token.
    public var computedMicroseconds: UInt64

    /// An end.
    public init(
        token: Token?, segments: UInt32, cachedTokens: Int = 0, queuedMicroseconds: UInt64, computedMicroseconds: UInt64
    ) {
        self.cachedTokens = cachedTokens
        self.token = token
        self.segments = segments
        self.queuedMicroseconds = queuedMicroseconds
        self.computedMicroseconds = computedMicroseconds
    }

    /// Metadata of the end frame.
    public func encoded() -> [UInt8] {
        var writer = FieldWriter()
        if let token { writer.put(1) { token.encode(into: &$0) } }
        writer.put(2, segments)
        writer.put(3, queuedMicroseconds)
        writer.put(4, computedMicroseconds)
        if cachedTokens > 0 { writer.put(5, UInt32(clamping: cachedTokens)) }
        return writer.bytes
    }

    /// Parses metadata.
    ///
    /// - Throws: `WireError` that names the field.
    public init(decoding bytes: [UInt8]) throws(WireError) {
        let reader = try FieldReader(bytes, known: 1...5)
        token = try reader.slice(1).map { (fields) throws(WireError) in
            try Token(decoding: FieldReader(fields, known: 1...2))
        }
        segments = try reader.integer(2, "segments")
        queuedMicroseconds = try reader.integer(3, "queued", fallback: 0)
        computedMicroseconds = try reader.integer(4, "computed", fallback: 0)
        cachedTokens = try reader.count(5, "cached_tokens", in: 0...MessageLimits.promptTokens, fallback: 0)
    }
}
