import TPU

/// Fits a few parameters of the device to the figures that may be fitted (docs/kernels.md#published-figures).
///
/// Every parameter has one figure that identifies it. They are fitted one after the other, several times round, because
/// each moves the others' figures a little. The search is bounded and gives the same values every time.
public struct Calibration: Sendable {
    /// A parameter and the figure that decides it.
    struct Step: Sendable {
        let parameter: DeviceParameters.Name
        let figure: String
    }

    /// At most six.
    static let steps = [
        Step(parameter: .linkRate, figure: "v2-prefill-16384-bf16"),
        Step(parameter: .firstProducts, figure: "ffn1"),
        Step(parameter: .secondProduct, figure: "tile-256-128"),
        Step(parameter: .slicedFactor, figure: "v1-prefill-16384"),
        Step(parameter: .remoteLatency, figure: "metadata"),
        Step(parameter: .matrixFloor, figure: "v2-decode-512"),
    ]

    private static let rounds = 3
    private static let evaluationsPerStep = 9

    /// What happened after one step.
    public struct Progress: Sendable {
        /// Which time round, from 1.
        public let round: Int
        /// The parameter's name in the file.
        public let parameter: String
        /// Its value now.
        public let value: Double
        /// The figure that decides it.
        public let figure: String
        /// The figure's largest error now, percent.
        public let error: Double
    }

    private let figures: [String: PublishedFigure]

    /// A calibration on the published figures.
    ///
    /// - Throws: `FusedMoEError` when a figure is missing or must not be fitted.
    public init() throws(FusedMoEError) {
        let known = try PublishedFigure.kernelFigures()
        figures = Dictionary(known.map { ($0.id, $0) }, uniquingKeysWith: { first, _ in first })
        for step in Self.steps {
            guard figures[step.figure]?.use == .calibrate else {
                throw FusedMoEError(.parameters, "figure \"\(step.figure)\" must not be fitted")
            }
        }
    }

    /// The fitted parameters, starting from `parameters`.
    ///
    /// - Throws: `FusedMoEError` of a call that cannot be simulated.
    public func fit(
        _ parameters: DeviceParameters, progress: (Progress) -> Void = { _ in }
    ) throws(FusedMoEError) -> DeviceParameters {
        var fitted = parameters
        for name in DeviceParameters.Name.allCases {
            fitted[entry: name].fitted = Self.steps.contains { $0.parameter == name }
        }
        for round in 1...Self.rounds {
            for step in Self.steps {
                let error = try fit(step, in: &fitted, span: round == 1 ? 1 : 0.2)
                progress(
                    Progress(
                        round: round, parameter: step.parameter.rawValue, value: fitted[step.parameter],
                        figure: step.figure, error: error))
            }
        }
        return fitted
    }

    /// Narrows the share `span` of the parameter's range, around its value, to the smallest error by golden sections;
    /// the error has one minimum there.
    private func fit(
        _ step: Step, in parameters: inout DeviceParameters, span: Double
    ) throws(FusedMoEError) -> Double {
        let entry = parameters[entry: step.parameter]
        let ratio = 0.618_033_988_749_894_8
        let reach = span * (entry.high - entry.low)
        var low = span < 1 ? max(entry.low, entry.value - reach / 2) : entry.low
        var high = span < 1 ? min(entry.high, entry.value + reach / 2) : entry.high
        var (left, right) = (high - ratio * (high - low), low + ratio * (high - low))
        var leftError = try error(step, left, parameters)
        var rightError = try error(step, right, parameters)
        for _ in 0..<Self.evaluationsPerStep {
            if leftError <= rightError {
                (high, right, rightError) = (right, left, leftError)
                left = high - ratio * (high - low)
                leftError = try error(step, left, parameters)
            } else {
                (low, left, leftError) = (left, right, rightError)
                right = low + ratio * (high - low)
                rightError = try error(step, right, parameters)
            }
        }
        let best = leftError <= rightError ? left : right
        parameters[step.parameter] = Self.rounded(best)
        return min(leftError, rightError)
    }

    private func error(
        _ step: Step, _ value: Double, _ parameters: DeviceParameters
    ) throws(FusedMoEError) -> Double {
        guard let figure = figures[step.figure] else { return .infinity }
        var changed = parameters
        changed[step.parameter] = value
        return try FigureComparison(figure, FigureCalls(parameters: changed)).largestError
    }

    /// Three decimals are more than the figures say.
    private static func rounded(_ value: Double) -> Double { (value * 1000).rounded() / 1000 }
}
