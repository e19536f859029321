import DeploymentModel
import FusedMoE
import TestSupport
import Testing

struct ServingValidationTests {
    @Test func everyServingAndMemoryFigureIsThere() throws {
        let figures = try ServingFigure.all()
        #expect(figures.count == 14)
        #expect(figures.filter { $0.use == .calibrate }.map(\.name) == ["e2e-1024-c32 TPOT", "e2e-h200 decode at 128"])
        #expect(throws: DeploymentError.self) { try ServingFigure.all(json: .init("{}".utf8)) }
    }

    /// A figure that may only be predicted is never fitted.
    @Test func calibrationUsesFiguresThatMayBeFitted() throws {
        _ = try ServingCalibration()
    }

    /// Two requests on one rank, prompts first: both prompts go in one step, then eight ranks' worth of decode steps.
    @Test func closedLoopCountsItsSteps() throws {
        var deployment = try Deployment()
        let loop = ServingCase(promptTokens: 64, outputTokens: 3, concurrency: 8, requests: 16)
        let run = ClosedLoop().measure(loop, on: deployment)
        let prefill = deployment.cost(of: StepWork(ranks: 8, each: [.prefill(rows: 64, samples: true)])).total
        let decodes = [64, 65].map { deployment.cost(of: StepWork(ranks: 8, each: [.decode(context: $0)])).total }
        let wave = Double(prefill + decodes[0] + decodes[1]) * 1e-12
        #expect(abs(run.seconds - 2 * wave) < 1e-12)
        #expect(abs(run.firstTokenMilliseconds - Double(prefill) * 1e-9) < 1e-9)
        #expect(abs(run.tokenMilliseconds - Double(decodes[0] + decodes[1]) * 0.5e-9) < 1e-9)
        #expect(ClosedLoop().measure(loop, on: deployment) == run)
    }

    /// More efficiency, more throughput; more context, less; and prefill is ahead of decode.
    @Test func referenceMovesAsItShould() {
        var costs = CostParameters.default
        let base = H200Reference(costs: costs)
        #expect(
            base.decodeThroughput(concurrency: 128, context: 1000)
                > base.decodeThroughput(concurrency: 128, context: 100_000))
        #expect(
            base.decodeThroughput(concurrency: 512, context: 1000)
                > base.decodeThroughput(concurrency: 128, context: 1000))
        costs[.referenceEfficiency] = costs[entry: .referenceEfficiency].low
        #expect(
            H200Reference(costs: costs).decodeThroughput(concurrency: 128, context: 1000)
                < base.decodeThroughput(concurrency: 128, context: 1000))
        #expect(base.capacity(tokens: 1000) > base.capacity(tokens: 100_000))
    }

    @Test func splittingIsJudgedOnTheSameChips() throws {
        let comparison = try LayoutComparison(
            .init(promptTokens: 16_384, outputTokens: 1024, concurrency: 128))
        #expect(comparison.rows.count == 3)
        #expect(Set(comparison.rows.map(\.devices)) == [32])
        #expect(comparison.verdict(comparison.rows[0]).requests == 0)
    }
}
