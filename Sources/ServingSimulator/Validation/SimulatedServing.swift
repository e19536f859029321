import DeploymentModel
import LoadTesting
import Scheduling

/// Runs the closed loops behind published figures on the serving simulator: the scheduler, pools and placement that serve,
/// with the published policy (`StepPolicy.prefillFirst`, chunks of the deployment's rows per rank).
///
/// The client's requests come at once and the slice does not gather: how long they were apart was not published.
public struct SimulatedServing: ServingRunner {
    /// A runner.
    public init() {}

    /// Runs the loop to its end.
    ///
    /// - Throws: `DeploymentError` with code `.memory` when the requests do not fit, with the sum; with code `.figures`
    ///   when a request did not end well.
    public func measure(_ loop: ServingCase, on deployment: Deployment) throws -> ServingMeasurement {
        let perRank = (loop.concurrency + deployment.ranks - 1) / deployment.ranks
        try deployment.memory.require(
            requestsPerRank: perRank, tokensPerRequest: loop.promptTokens + loop.outputTokens)
        var simulation = ServingSimulation(scenario(loop, deployment))
        let result = simulation.run()
        return try measurement(loop, result)
    }

    private func scenario(_ loop: ServingCase, _ deployment: Deployment) -> ServingScenario {
        var choice = ServingDeployment.Choice()
        choice.prefillChunk = deployment.options.rowsPerRank
        choice.gatherMicroseconds = 0
        let serving = ServingDeployment(deployment, choice)
        let load = ServingLoad(
            workload: RandomWorkload(
                count: loop.requests, content: .ids(below: 256), input: LengthRange(loop.promptTokens),
                output: LengthRange(loop.outputTokens), seed: 0),
            due: Array(repeating: 0, count: loop.requests), limit: ConcurrencyLimit(loop.concurrency))
        var limits = PlacementLimits()
        limits.waiting = loop.requests
        limits.expectedGrowth = choice.expectedGrowth
        return ServingScenario(slices: [serving.slice("published")], load: load, placement: limits)
    }

    private func measurement(_ loop: ServingCase, _ result: ServingResult) throws(DeploymentError) -> ServingMeasurement
    {
        guard result.records.count == loop.requests, result.records.allSatisfy({ $0.outcome == .completed }) else {
            throw DeploymentError(
                .figures, "not all of \(loop.requests) requests ended well: the run says nothing about a figure")
        }
        let (seconds, count) = (Double(result.nanoseconds) * 1e-9, Double(max(1, loop.requests)))
        func mean(_ value: (RequestRecord) -> Double?) -> Double {
            result.records.reduce(0) { $0 + (value($1) ?? 0) } / count
        }
        let decode = result.slices.compactMap { $0.steps[.decode] }
        let decodeSeconds = decode.reduce(0) { $0 + Double($1.cost.total) } * 1e-12
        return ServingMeasurement(
            outputTokensPerSecond: count * Double(loop.outputTokens) / seconds,
            promptTokensPerSecond: count * Double(loop.promptTokens) / seconds,
            firstTokenMilliseconds: mean(\.timeToFirstToken), tokenMilliseconds: mean(\.timePerOutputToken),
            seconds: seconds,
            decodeTokensPerSecond: decodeSeconds == 0
                ? 0 : Double(decode.reduce(0) { $0 + $1.decodeRows }) / decodeSeconds)
    }
}

extension ServingDeployment {
    /// Slices of a deployment that exists, with the pools that its HBM holds.
    init(_ deployment: Deployment, _ choice: Choice) {
        self.deployment = deployment
        self.choice = choice
        slots = deployment.memory.requestsPerRank
        pages = max(1, deployment.memory.tokensPerRank / 64)
    }
}
