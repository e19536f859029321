import TPU

/// Fits the two numbers of the step costs that are fitted: host time per step to the cookbook row's TPOT, and the H200's
/// efficiency to the published ratio at concurrency 128.
public struct ServingCalibration {
    private static let rounds = 3
    private static let bisections = 40

    private let token: ServingFigure
    private let ratio: ServingFigure

    /// A calibration on the published figures.
    ///
    /// - Throws: `DeploymentError` when a figure is missing or must not be fitted.
    public init() throws(DeploymentError) {
        func figure(_ name: String) throws(DeploymentError) -> ServingFigure {
            guard let figure = try ServingFigure.all().first(where: { $0.name == name }), figure.use == .calibrate
            else {
                throw DeploymentError(.figures, "figure \"\(name)\" must not be fitted")
            }
            return figure
        }
        token = try figure("e2e-1024-c32 TPOT")
        ratio = try figure("e2e-h200 decode at 128")
    }

    /// The fitted parameters.
    ///
    /// - Throws: `DeploymentError`, also when a figure would need a value outside of the parameter's range, and what the
    ///   runner throws.
    public func fit(
        _ costs: CostParameters, runner: some ServingRunner, device: DeviceParameters = .default,
        progress: (String) -> Void = { _ in }
    ) throws -> CostParameters {
        var fitted = costs
        // A step's host time is in every token's time once, so the difference is what has to be added.
        for round in 1...Self.rounds {
            let run = try runner.measure(.cookbook, on: Deployment(costs: fitted, device: device))
            try set(.host, fitted[.host] + token.published - run.tokenMilliseconds, in: &fitted)
            progress("round \(round): \(CostParameters.Name.host.rawValue) = \(fitted[.host])")
        }
        let decode = try runner.measure(.decode128, on: Deployment(costs: fitted, device: device))
            .decodeTokensPerSecond
        try fitReference(&fitted, throughput: decode / ratio.published)
        progress("\(CostParameters.Name.referenceEfficiency.rawValue) = \(fitted[.referenceEfficiency])")
        return fitted
    }

    /// Throughput grows with the efficiency, so halving finds it.
    private func fitReference(_ costs: inout CostParameters, throughput: Double) throws(DeploymentError) {
        let name = CostParameters.Name.referenceEfficiency
        var (low, high) = (costs[entry: name].low, costs[entry: name].high)
        for _ in 0..<Self.bisections {
            costs[name] = (low + high) / 2
            let own = H200Reference(costs: costs).decodeThroughput(
                concurrency: ServingCase.decode128.concurrency, context: ServingCase.decode128.meanDecodeContext)
            if own < throughput { low = costs[name] } else { high = costs[name] }
        }
        try set(name, (low + high) / 2, in: &costs)
    }

    /// Three decimals are more than the figures say.
    private func set(
        _ name: CostParameters.Name, _ value: Double, in costs: inout CostParameters
    ) throws(DeploymentError) {
        let entry = costs[entry: name]
        guard value >= entry.low, value <= entry.high else {
            throw DeploymentError(
                .parameters,
                "\"\(name.rawValue)\" would have to be \(value), its range is \(entry.low) to \(entry.high) \(entry.unit)"
            )
        }
        costs[name] = (value * 1000).rounded() / 1000
    }
}
