import TPU

/// A published figure beside what the simulator gives.
public struct FigureComparison: Sendable, Equatable {
    /// The published figure.
    public let figure: PublishedFigure
    /// Ours, in the figure's unit and order.
    public let ours: [Double]

    /// Signed errors: percent of the published number; for figures that are percentages themselves, points.
    public var errors: [Double] {
        zip(ours, figure.values).map { ours, published in
            guard figure.unit != "percent" else { return ours - published }
            let ours = figure.use == .exact ? Self.rounded(ours, like: published) : ours
            return 100 * (ours - published) / published.magnitude
        }
    }

    /// To as many decimals as the published number has, three at most.
    private static func rounded(_ value: Double, like published: Double) -> Double {
        let unit = published == published.rounded() ? 1.0 : 1000
        return (value * unit).rounded() / unit
    }

    /// The largest error's magnitude.
    public var largestError: Double { errors.map(\.magnitude).max() ?? 0 }

    /// Signed errors in percent of the published number, also of figures that are percentages themselves.
    public var relativeErrors: [Double] {
        zip(errors, figure.values).map { error, published in
            figure.unit == "percent" ? 100 * error / published.magnitude : error
        }
    }

    /// Why an error is as large as it is, where it is known.
    public var reason: String? { Self.reasons[figure.id] }

    private static let reasons = [
        "all-to-all-flat":
            "a stand-alone operation, not a part of the kernel. Its two numbers lie on a line with 0.59 ms at zero bytes, "
            + "144 ns per row of a device; the kernel's own scatter of the same rows (scatter-in-kernel) has no such term. "
            + "What the links decide, the slope, is 21.1 ps per byte here and 22.4 there.",
        "matmul-off":
            "a small difference of two large numbers: without matmuls ours takes 2.30 ms, theirs 2.37, 3 % apart. What is "
            + "left then is the links' time, and the link rate is fitted to another call, the one in bf16.",
        "vmem":
            "the blog's column mixes two sizes, as we read it with the numbers in sight. 128 rows, what the kernel takes when "
            + "nobody gives any (bts = bt), are the buffers of the kernel that ran; the three candidates of the sweep are "
            + "the tuner's estimate, which counts a row in bf16 though fp8 is stored. The estimate of 128 rows is 45.2 "
            + "MiB, the buffers of 160 and 256 are 46.1 and 51.8.",
    ]

    /// Compares one figure.
    ///
    /// - Throws: `FusedMoEError` when a call cannot be simulated, or the figure is not known.
    public init(_ figure: PublishedFigure, _ calls: FigureCalls) throws(FusedMoEError) {
        self.figure = figure
        ours = try Self.evaluate(figure, calls)
        guard ours.count == figure.values.count else {
            throw FusedMoEError(
                .parameters, "figure \(figure.id) has \(figure.values.count) numbers, \(ours.count) were simulated")
        }
    }

    private static func evaluate(_ figure: PublishedFigure, _ calls: FigureCalls) throws(FusedMoEError) -> [Double] {
        typealias Setup = FigureCalls.Setup
        switch figure.id {
        case "v1-prefill-16384": return [try calls.milliseconds(.slicedPrefill)]
        case "v2-prefill-16384-bf16": return [try calls.milliseconds(Setup.prefill.with { $0.isQuantized = false })]
        case "v2-prefill-16384": return [try calls.milliseconds(.prefill)]
        case "v2-prefill-16384-shared": return [try calls.milliseconds(Setup.prefill.with { $0.isShared = true })]
        case "v2-prefill-16384-whole-prequant":
            return [try calls.milliseconds(Setup.prefill.with { $0.prequantization = .whole })]
        case "v2-decode-512", "v2-decode-512-blog":
            return [try calls.milliseconds(Setup.decode.with { $0.isShared = true })]
        case "v1-decode-512":
            return [
                try calls.milliseconds(
                    Setup.decode.with { ($0.kernel, $0.isQuantized, $0.isShared) = (.v1, false, true) })
            ]
        case "tile-256-128":
            return [try calls.milliseconds(Setup.prefill.with { $0.tile = "bt=128,bf=512,bts=256,btc=128" })]
        default: return try evaluatePart(figure, calls)
        }
    }

    /// Figures about a part of a call.
    private static func evaluatePart(
        _ figure: PublishedFigure, _ calls: FigureCalls
    ) throws(FusedMoEError) -> [Double] {
        typealias Setup = FigureCalls.Setup
        switch figure.id {
        case "metadata":
            return [
                try calls.milliseconds(.decode, { $0.breakdown.metadata }) * 1e3,
                try calls.milliseconds(Setup.decode.with { $0.metadata = .direct }, { $0.breakdown.metadata }) * 1e3,
            ]
        case "scatter-in-kernel":
            return [try scatter(calls, isQuantized: false), try scatter(calls, isQuantized: true)]
        case "shared-own-exposed":
            let shared = Setup.prefill.with { $0.isShared = true }
            return [
                try calls.milliseconds(shared, { $0.breakdown.sharedExposed }),
                try calls.milliseconds(shared) - calls.milliseconds(.prefill),
            ]
        case "matmul-off":
            let full = try calls.milliseconds(.prefill)
            let off = try calls.milliseconds(Setup.prefill.with { $0.ablations = [.matmul] })
            return [100 * (off - full) / full]
        case "routed-window":
            return [
                100 * (try calls.milliseconds(.prefill, { $0.breakdown.routedWindow }) / calls.milliseconds(.prefill))
            ]
        case "ffn1": return [try calls.milliseconds(.prefill, { $0.firstProducts })]
        default: return try evaluateArithmetic(figure, calls)
        }
    }

    /// What the scatter adds to a kernel that does nothing else, as ablations measure it.
    private static func scatter(_ calls: FigureCalls, isQuantized: Bool) throws(FusedMoEError) -> Double {
        let only = FigureCalls.Setup.prefill.with { ($0.isQuantized, $0.ablations) = (isQuantized, [.ffn, .gather]) }
        return try calls.milliseconds(only) - calls.milliseconds(only.with { $0.ablations.insert(.scatter) })
    }

    /// Figures that need no kernel, and the one that is only reported.
    private static func evaluateArithmetic(
        _ figure: PublishedFigure, _ calls: FigureCalls
    ) throws(FusedMoEError) -> [Double] {
        typealias Setup = FigureCalls.Setup
        switch figure.id {
        case "vmem": return try vectorMemory(calls)
        case "all-to-all-flat":
            return try [2, 1].map { (bytes) throws(FusedMoEError) in
                try calls.allToAll(valueBytes: bytes)
            }
        case "hbm-decode":
            let call = try calls.call(.decode)
            let window = try calls.milliseconds(.decode, { $0.breakdown.routedWindow })
            return [100 * (try LowerBounds(call).weightsOnce) / window]
        case "bounds":
            let bounds = try LowerBounds(try calls.call(Setup.prefill.with { $0.isShared = true }))
            return [bounds.computeAsPrinted, bounds.compute, bounds.weightsOnce, bounds.weightsPerTile]
        default: throw FusedMoEError(.parameters, "the published figure \"\(figure.id)\" is not known")
        }
    }

    /// The default tile by its buffers, the candidates of the sweep by the tuner's estimate (see the reason).
    private static func vectorMemory(_ calls: FigureCalls) throws(FusedMoEError) -> [Double] {
        let buffers = try calls.run(FigureCalls.Setup.prefill.with { $0.tile = "bt=128,bf=512,bts=128,btc=128" })
        let call = try calls.call(.prefill)
        let candidates = [(160, 80), (256, 128), (384, 128)].map { bts, btc in
            var tile = call.tile
            (tile.bts, tile.btc) = (bts, btc)
            return MemoryEstimate(tile: tile, problem: call.problem, kernel: .v2, options: call.options)
                .vectorMebibytes
        }
        return [buffers.bufferMebibytes] + candidates
    }
}
