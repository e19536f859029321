import Numerics

/// The dimensions of one mixture-of-experts layer.
public struct MoEShape: Sendable, Equatable {
    /// Width of a token's hidden row (H).
    public var hidden: Int
    /// Width of one routed expert (I).
    public var intermediate: Int
    /// Routed experts over all devices (E).
    public var experts: Int
    /// Experts per token (k).
    public var topK: Int
    /// Width of the shared expert; 0 means there is none.
    public var sharedIntermediate: Int

    /// A layer with these dimensions; the shared expert is as wide as a routed one unless said otherwise.
    public init(hidden: Int, intermediate: Int, experts: Int, topK: Int, sharedIntermediate: Int? = nil) {
        self.hidden = hidden
        self.intermediate = intermediate
        self.experts = experts
        self.topK = topK
        self.sharedIntermediate = sharedIntermediate ?? intermediate
    }

    /// Ling-2.6-1T.
    public static let ling1T = MoEShape(hidden: 8192, intermediate: 2048, experts: 256, topK: 8)
    /// Ling-2.6-flash.
    public static let lingFlash = MoEShape(hidden: 4096, intermediate: 1024, experts: 256, topK: 8)

    /// The published shapes by the names the command line takes.
    public static let named: [String: MoEShape] = ["ling-2.6-1t": .ling1T, "ling-2.6-flash": .lingFlash]

    /// Parameters of one routed expert: W1, W3 and W2.
    public var expertParameters: Int { 3 * hidden * intermediate }

    /// The smallest shape that holds this one and that the kernels accept: rows are split into planes of whole lanes
    /// and tiles are whole lanes wide. Padding with zero weights changes no result.
    public var paddedToLanes: MoEShape {
        func up(_ value: Int, _ unit: Int) -> Int { (value + unit - 1) / unit * unit }
        var shape = self
        shape.hidden = up(hidden, 512)
        shape.intermediate = up(intermediate, 128)
        shape.sharedIntermediate = up(sharedIntermediate, 128)
        return shape
    }
}

/// How fp8 weights are scaled back.
public enum ScaleBlock: String, Sendable, Equatable {
    /// One fp32 scale per output channel.
    case perChannel = "none"
    /// One fp32 scale per output channel and 128 inputs.
    case inputs128 = "128"

    /// Scale groups over `inputs` inputs.
    public func groups(inputs: Int) -> Int {
        switch self {
        case .perChannel: 1
        case .inputs128: (inputs + 127) / 128
        }
    }
}

/// Where a quantised row carries its fp32 scale.
public enum ScaleCarrier: String, Sendable, Equatable {
    /// As published: the four bytes replace hidden channels H/4-1, H/2-1, 3H/4-1 and H-1, whose values are lost.
    case faithful
    /// Beside the row: nothing is lost and every row is 4 bytes longer. Ours.
    case lossless
}

/// What a token's row is made of when it travels to its experts and enters the first matrix products.
public enum TokenFormat: Sendable, Equatable {
    /// Not quantised, nothing is rounded on the way there or back: what the services use.
    case float32
    /// The kernel's own format without activation quantisation.
    case bfloat16
    /// Quantised per token to e4m3.
    case float8(ScaleCarrier)

    /// Bytes of one row of `hidden` values as it is sent.
    public func rowBytes(hidden: Int) -> Int {
        switch self {
        case .float32: 4 * hidden
        case .bfloat16: 2 * hidden
        case .float8(.faithful): hidden
        case .float8(.lossless): hidden + 4
        }
    }

    /// Bytes of one row of expert results as it comes back.
    public func resultRowBytes(hidden: Int) -> Int { self == .float32 ? 4 * hidden : 2 * hidden }

    /// Planes a row is split into (token packing): 32-bit words hold one value of each.
    public var planes: Int {
        switch self {
        case .float32: 1
        case .bfloat16: 2
        case .float8: 4
        }
    }

    /// True when rows are quantised.
    public var isQuantized: Bool {
        if case .float8 = self { return true }
        return false
    }
}

/// Element types of a layer's weights and tokens.
public struct Quantization: Sendable, Equatable {
    /// Stored type of W1, W3 and W2.
    public var weights: ElementType
    /// Scales of fp8 weights.
    public var scaleBlock: ScaleBlock
    /// Rows on the wire.
    public var tokens: TokenFormat

    /// These element types.
    public init(
        weights: ElementType = .float8E4M3, scaleBlock: ScaleBlock = .perChannel,
        tokens: TokenFormat = .float8(.faithful)
    ) {
        self.weights = weights
        self.scaleBlock = scaleBlock
        self.tokens = tokens
    }

    /// The published deployment: fp8 weights, fp8 tokens with the scale in the row.
    public static let publishedFloat8 = Quantization()
    /// fp8 weights, bf16 tokens.
    public static let weightsOnly = Quantization(tokens: .bfloat16)
    /// bf16 throughout.
    public static let bfloat16 = Quantization(weights: .bfloat16, tokens: .bfloat16)
}
