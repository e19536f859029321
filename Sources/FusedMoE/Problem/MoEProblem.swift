/// One call of the fused kernel: a layer, its tokens and the devices that share them (docs/kernels.md#problem-and-tiles).
public struct MoEProblem: Sendable, Equatable {
    /// Dimensions of the layer.
    public var shape: MoEShape
    /// Tokens over all devices (T).
    public var tokens: Int
    /// Devices of the expert-parallel group (N).
    public var devices: Int
    /// Element types.
    public var quantization: Quantization

    /// A call with these sizes; `validated()` says whether it can be done.
    public init(
        shape: MoEShape, tokens: Int, devices: Int, quantization: Quantization = .publishedFloat8
    ) {
        self.shape = shape
        self.tokens = tokens
        self.devices = devices
        self.quantization = quantization
    }

    /// Largest sizes that are accepted; everything below them is computed without overflow.
    public enum Limits {
        /// Hidden and intermediate width.
        public static let width = 65_536
        /// Routed experts.
        public static let experts = 4096
        /// Experts per token: ids and weights fill one row of 128 lanes.
        public static let topK = 128
        /// Tokens of one call.
        public static let tokens = 1 << 20
        /// Devices.
        public static let devices = 1024
    }

    /// Rows of every device (T_L): tokens are spread evenly; V2 pads them to a multiple of 8.
    public func rowsPerDevice(_ kernel: KernelVersion) -> Int {
        let rows = (tokens + devices - 1) / devices
        return kernel == .v2 ? (rows + 7) / 8 * 8 : rows
    }

    /// Routed experts of every device (E_L).
    public var expertsPerDevice: Int { shape.experts / devices }

    /// Tokens that device `device` really has: the first ones take the remainder.
    public func tokenCount(device: Int) -> Int { tokens / devices + (device < tokens % devices ? 1 : 0) }

    /// First token of device `device`.
    public func firstToken(device: Int) -> Int { device * (tokens / devices) + min(device, tokens % devices) }

    /// The device that owns an expert: contiguous ranges.
    public func owner(expert: Int) -> Int { expert / expertsPerDevice }

    /// The problem itself when it can be done.
    ///
    /// - Throws: `FusedMoEError` that names the first field that is out of range.
    public func validated() throws(FusedMoEError) -> MoEProblem {
        func check(_ name: String, _ value: Int, _ range: ClosedRange<Int>) throws(FusedMoEError) {
            guard !range.contains(value) else { return }
            let excess = value > range.upperBound ? ", \(value - range.upperBound) too many" : ""
            throw FusedMoEError(
                .problem, "\(name) is \(value), it must be from \(range.lowerBound) to \(range.upperBound)\(excess)")
        }
        try check("tokens", tokens, 1...Limits.tokens)
        try check("ep", devices, 1...Limits.devices)
        try check("hidden", shape.hidden, 1...Limits.width)
        try check("intermediate", shape.intermediate, 1...Limits.width)
        try check("the shared expert's intermediate", shape.sharedIntermediate, 0...Limits.width)
        try check("experts", shape.experts, 1...Limits.experts)
        try check("top-k", shape.topK, 1...min(Limits.topK, shape.experts))
        try checkDivisibility()
        return self
    }

    private func checkDivisibility() throws(FusedMoEError) {
        func require(
            _ name: String, _ value: Int, multipleOf unit: Int, _ reason: String
        ) throws(FusedMoEError) {
            guard value % unit != 0 else { return }
            throw FusedMoEError(
                .problem,
                "\(name) is \(value), it must be a multiple of \(unit) (\(reason)): \(value % unit) too many or "
                    + "\(unit - value % unit) too few")
        }
        try require("experts", shape.experts, multipleOf: devices, "every device owns the same number")
        let planes = quantization.tokens.planes
        try require(
            "hidden", shape.hidden, multipleOf: max(2, planes) * 128, "\(max(2, planes)) planes of whole lanes")
        try require("intermediate", shape.intermediate, multipleOf: 128, "whole lanes")
        try require("the shared expert's intermediate", shape.sharedIntermediate, multipleOf: 128, "whole lanes")
        if quantization.tokens.isQuantized, quantization.weights != .float8E4M3 {
            throw FusedMoEError(
                .option, "activation quantisation needs fp8 weights, these are \(quantization.weights.rawValue)")
        }
    }
}
