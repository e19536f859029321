/// The shapes of a model's request state: latents of the MLA layers per token, recurrent states of the linear layers
/// per request. Linear layers take no KV.
public struct StateShape: Sendable, Equatable {
    /// MLA layers.
    public var latentLayers: Int
    /// Width of the compressed KV latent (R).
    public var latentWidth: Int
    /// Width of the shared rotary key (dr).
    public var ropeWidth: Int
    /// Bytes of one latent element: 2 for BF16.
    public var latentElementBytes: Int
    /// Linear-attention layers.
    public var linearLayers: Int
    /// Linear-attention heads (H).
    public var headCount: Int
    /// Width of a head (D); a state is [H, D, D] in FP32.
    public var headWidth: Int

    /// The state of a model.
    public init(
        latentLayers: Int, latentWidth: Int, ropeWidth: Int, latentElementBytes: Int = 2, linearLayers: Int,
        headCount: Int, headWidth: Int
    ) {
        self.latentLayers = latentLayers
        self.latentWidth = latentWidth
        self.ropeWidth = ropeWidth
        self.latentElementBytes = latentElementBytes
        self.linearLayers = linearLayers
        self.headCount = headCount
        self.headWidth = headWidth
    }

    /// Ling-2.6-1T: 80 layers in groups of eight, 64 heads of 128, latents of 512 + 64.
    public static let ling1T = StateShape(
        latentLayers: 10, latentWidth: 512, ropeWidth: 64, linearLayers: 70, headCount: 64, headWidth: 128)
}

/// How many requests and tokens a byte budget holds.
public struct PoolCapacity: Sendable, Equatable, CustomStringConvertible {
    /// Requests that hold state at once: recurrent slots without padding.
    public let requests: Int
    /// Tokens of KV: pages without padding, times 64.
    public let tokens: Int
    /// Bytes of the recurrent pool, padding included.
    public let recurrentBytes: Int
    /// Bytes of the KV pool, padding included.
    public let latentBytes: Int

    /// One line for the start of a service.
    public var description: String {
        "\(requests) requests (\(bytesText(recurrentBytes)) of recurrent state), "
            + "\(tokens) tokens (\(bytesText(latentBytes)) of KV)"
    }
}

/// Bytes per token and per request on one device, and what a budget of bytes holds.
public struct PoolCalculator: Sendable, Equatable {
    /// Lanes a device row is padded to.
    public static let laneCount = 128
    /// Tokens of a page.
    public static let pageTokens = 64

    /// The model's state.
    public let shape: StateShape
    /// Devices the heads are split over.
    public let tensorParallel: Int
    /// True when latent and rotary key are each padded to whole lanes, as on a device.
    public let isPadded: Bool

    /// A calculator; throws a sentence when the heads do not split evenly or a width is not positive.
    public init(shape: StateShape, tensorParallel: Int = 1, isPadded: Bool = false) throws(PoolBudgetError) {
        let widths = [shape.latentWidth, shape.ropeWidth, shape.latentElementBytes, shape.headCount, shape.headWidth]
        guard widths.allSatisfy({ (1...(1 << 16)).contains($0) }),
            (0...4096).contains(shape.latentLayers), (0...4096).contains(shape.linearLayers)
        else { throw PoolBudgetError("the state's widths must be 1 to 65536 and its layers 0 to 4096") }
        guard tensorParallel > 0, shape.headCount % tensorParallel == 0 else {
            throw PoolBudgetError("\(shape.headCount) heads do not split over \(tensorParallel) devices")
        }
        self.shape = shape
        self.tensorParallel = tensorParallel
        self.isPadded = isPadded
    }

    /// Bytes of KV per token and device. The latent is shared by all heads, so every device holds all of it.
    public var bytesPerToken: Int {
        shape.latentLayers * shape.latentElementBytes * (lanes(shape.latentWidth) + lanes(shape.ropeWidth))
    }

    /// Bytes of recurrent state per request and device.
    public var bytesPerRequest: Int {
        shape.linearLayers * 4 * shape.headCount / tensorParallel * shape.headWidth * shape.headWidth
    }

    /// Splits `bytes` as recurrent : KV = `ratio` : 1 and says what each part holds; throws when a part holds nothing
    /// beyond its padding.
    public func capacity(bytes: Int, ratio: Double = 0.9) throws(PoolBudgetError) -> PoolCapacity {
        guard ratio > 0, ratio.isFinite, bytes > 0 else {
            throw PoolBudgetError("a state budget needs bytes and a ratio above 0, not \(bytes) bytes at \(ratio)")
        }
        let recurrent = bytesPerRequest == 0 ? 0 : min(bytes, Int(Double(bytes) * (ratio / (1 + ratio))))
        let slots = bytesPerRequest == 0 ? Int(Int32.max) : recurrent / bytesPerRequest
        let pageBytes = bytesPerToken * Self.pageTokens
        let pages = pageBytes == 0 ? Int(Int32.max) : (bytes - recurrent) / pageBytes
        guard slots >= 2, pages >= 2 else {
            throw PoolBudgetError(
                "\(bytesText(bytes)) hold \(slots) slots of \(bytesText(bytesPerRequest)) and \(pages) pages of "
                    + "\(bytesText(pageBytes)); at least 2 of each are needed, of which one is padding")
        }
        return PoolCapacity(
            requests: slots - 1, tokens: (pages - 1) * Self.pageTokens, recurrentBytes: slots * bytesPerRequest,
            latentBytes: pages * pageBytes)
    }

    /// What pools of a given size take, padding included.
    public func capacity(requests: Int, tokens: Int) -> PoolCapacity {
        let pages = (tokens + Self.pageTokens - 1) / Self.pageTokens
        return PoolCapacity(
            requests: requests, tokens: pages * Self.pageTokens, recurrentBytes: (requests + 1) * bytesPerRequest,
            latentBytes: (pages + 1) * Self.pageTokens * bytesPerToken)
    }

    /// Both numbers in words.
    public var summary: String {
        "TP \(tensorParallel), \(isPadded ? "padded to \(Self.laneCount) lanes" : "unpadded"): "
            + "\(bytesText(bytesPerToken)) per token over \(shape.latentLayers) MLA layers, "
            + "\(bytesText(bytesPerRequest)) per request over \(shape.linearLayers) linear layers"
    }

    private func lanes(_ width: Int) -> Int {
        isPadded ? (width + Self.laneCount - 1) / Self.laneCount * Self.laneCount : width
    }
}

/// A budget that cannot be used, in one sentence.
public struct PoolBudgetError: Error, Sendable, Equatable, CustomStringConvertible {
    /// What is wrong, with the numbers.
    public let description: String

    init(_ description: String) { self.description = description }
}

/// Bytes in the largest binary unit that is below them, with two decimals at most.
func bytesText(_ bytes: Int) -> String {
    var value = Double(bytes)
    var unit = 0
    while value >= 1024, unit < 4 {
        value /= 1024
        unit += 1
    }
    let hundredths = Int((value * 100).rounded())
    let fraction = hundredths % 100
    let digits = fraction == 0 ? "" : fraction % 10 == 0 ? ".\(fraction / 10)" : ".\(fraction / 10)\(fraction % 10)"
    return "\(hundredths / 100)\(digits) \(["B", "KiB", "MiB", "GiB", "TiB"][unit])"
}
