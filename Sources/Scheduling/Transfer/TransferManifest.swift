/// Number format of transferred state. State is sent as it lies in memory, never re-encoded.
public enum StateElement: String, Sendable, Equatable, CaseIterable {
    /// IEEE single precision.
    case float32
    /// Upper half of single precision.
    case bfloat16

    /// Bytes of one element.
    public var byteCount: Int { self == .float32 ? 4 : 2 }
}

/// The state of one layer that moves with a request.
public struct TransferLayer: Sendable, Equatable {
    /// What kind of attention the layer has.
    public enum Kind: String, Sendable, Equatable {
        /// MLA: one latent per token, sent chunk by chunk.
        case latent
        /// Linear attention: one state per request, sent after the last chunk.
        case recurrent
    }

    /// Layer of the model.
    public let index: Int
    /// MLA latents or recurrent state.
    public let kind: Kind
    /// Number format.
    public let element: StateElement
    /// Per token [R + dr] for latents, [H, D, D] for a recurrent state.
    public let shape: [Int]

    /// A layer's state.
    public init(index: Int, kind: Kind, element: StateElement, shape: [Int]) {
        self.index = index
        self.kind = kind
        self.element = element
        self.shape = shape
    }

    /// Bytes per token, or of the whole state; 0 for a shape that was not validated and overflows.
    public var byteCount: Int {
        shape.reduce(element.byteCount) { product, side in
            let (value, overflow) = product.multipliedReportingOverflow(by: side)
            return overflow ? 0 : value
        }
    }
}

/// What one hand-off consists of. Both sides make one from their own configuration; they must say the same before a
/// byte moves.
public struct TransferManifest: Sendable, Equatable {
    /// Most layers a manifest may name.
    public static let maximumLayers = 4096

    /// Fingerprint of the checkpoint.
    public let fingerprint: String
    /// Positions whose state moves: the prompt, from 0 or from a shared prefix on.
    public let positions: Range<Int>
    /// Tokens of a page.
    public let pageTokens: Int
    /// Every layer with state, ascending.
    public let layers: [TransferLayer]
    /// Generation of the reservation it is meant for. Not compared: a stale one is a matter of its own.
    public let generation: UInt64

    /// A manifest; throws a sentence when it is out of bounds, as one from another process may be.
    public init(
        fingerprint: String, positions: Range<Int>, pageTokens: Int, layers: [TransferLayer], generation: UInt64
    ) throws(TransferRefusal) {
        guard positions.lowerBound >= 0, !positions.isEmpty, positions.upperBound <= 1 << 24,
            (1...(1 << 16)).contains(pageTokens), positions.lowerBound % pageTokens == 0
        else { throw TransferRefusal("a transfer of positions \(positions) in pages of \(pageTokens) makes no sense") }
        guard layers.count <= Self.maximumLayers else {
            throw TransferRefusal("\(layers.count) layers named, the limit is \(Self.maximumLayers)")
        }
        for (layer, next) in zip(layers, layers.dropFirst()) where layer.index >= next.index {
            throw TransferRefusal("layer \(next.index) follows layer \(layer.index): layers must ascend")
        }
        for layer in layers {
            let limit = layer.kind == .latent ? 1 << 20 : 1 << 32
            guard layer.index >= 0, layer.shape.count <= 4, layer.shape.allSatisfy({ (1...(1 << 20)).contains($0) }),
                (1...limit).contains(layer.byteCount)
            else { throw TransferRefusal("layer \(layer.index): a shape of \(layer.shape) is out of bounds") }
        }
        let tokens = layers.count { $0.kind == .latent } * positions.count
        guard tokens <= 1 << 28 else {
            throw TransferRefusal(
                "\(positions.count) positions of \(layers.count) layers are too much to keep count of")
        }
        self.fingerprint = fingerprint
        self.positions = positions
        self.pageTokens = pageTokens
        self.layers = layers
        self.generation = generation
    }

    /// Bytes of the whole transfer.
    public var byteCount: Int {
        layers.reduce(0) { $0 + $1.byteCount * ($1.kind == .latent ? positions.count : 1) }
    }
}

/// Why a transfer, or a segment of one, is refused; one sentence.
public struct TransferRefusal: Error, Sendable, Equatable, CustomStringConvertible {
    /// What is wrong, with the numbers.
    public let description: String

    init(_ description: String) { self.description = description }
}
