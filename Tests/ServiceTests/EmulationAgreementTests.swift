import AttentionService
import DeploymentModel
import Emulation
import Foundation
import LoadTesting
import Scheduling
import Serving
import ServingSimulator
import Testing

/// The services under emulation, in virtual time, against the simulator: the same load, the same deployment, two ways to
/// run one set of decisions.
@Suite(.serialized) struct EmulationAgreementTests {
    private struct Case: Sendable, CustomTestStringConvertible {
        let name: String
        var choice = ServingDeployment.Choice()
        var roles: [Part] = [.both]
        var load: ServingLoad

        var testDescription: String { name }
    }

    private static func load(
        _ count: Int, input: Int, output: Int, ratio: Double = 1, concurrency: Int, rate: Double? = nil
    ) -> ServingLoad {
        ServingLoad(
            workload: RandomWorkload(
                count: count, content: .ids(below: 256), input: LengthRange(input, ratio: ratio),
                output: LengthRange(output, ratio: ratio), seed: 1),
            due: ArrivalProcess(rate.map { .constant($0) } ?? .unlimited, seed: 1).times(count: count),
            limit: ConcurrencyLimit(concurrency))
    }

    private static var cases: [Case] {
        var mixed = Case(
            name: "Poisson arrivals, mixed steps",
            load: load(24, input: 2048, output: 40, ratio: 0.25, concurrency: 64, rate: 6))
        mixed.choice.policy = .mixed
        var split = Case(
            name: "prefill and decode apart", roles: [.prefill, .decode],
            load: load(20, input: 1024, output: 30, concurrency: 8))
        split.choice.slice = "v7x-8"
        return [
            Case(name: "closed loop", load: load(24, input: 1024, output: 40, ratio: 0.5, concurrency: 8)), mixed,
            split,
        ]
    }

    @Test(arguments: cases) private func emulationAndSimulatorAgree(_ one: Case) throws {
        let model = try EmulatedModel("ling-2.6-1t")
        let serving = try ServingDeployment(shape: model.shape, one.choice)
        let cluster = try EmulatedCluster(model, serving, roles: one.roles, seed: 7)
        let live = LoadSummary(try cluster.measure(one.load), settings: LoadSettings())
        let counters = try cluster.counters(of: one.roles.count - 1)
        try cluster.close()
        let slices = one.roles.enumerated().map { index, role in
            serving.slice("\(index)", part: role, firstRank: index * serving.ranks)
        }
        var simulation = ServingSimulation(ServingScenario(slices: slices, load: one.load))
        let simulated = LoadSummary(simulation.run().records, settings: LoadSettings())

        #expect(live.completed == simulated.completed && live.completed == one.load.workload.count)
        #expect(live.outputTokens == simulated.outputTokens && live.inputTokens == simulated.inputTokens)
        for (name, one, other, limit) in [
            ("throughput", live.outputThroughput, simulated.outputThroughput, 0.03),
            ("TPOT", live.timePerOutputToken.mean, simulated.timePerOutputToken.mean, 0.03),
            ("TTFT", live.timeToFirstToken.mean, simulated.timeToFirstToken.mean, 0.05),
        ] { #expect(abs(one / other - 1) < limit, "\(name): live \(one), simulated \(other)") }
        #expect(counters["slots_in_use"] == 0 && counters["pages_in_use"] == 0)
        #expect(counters["emulated_late_steps"] == 0 && (counters["emulated_steps"] ?? 0) > 30)
    }

    /// A faster clock changes the times and nothing else.
    @Test func speedupDividesEveryTime() throws {
        let model = try EmulatedModel("ling-2.6-flash")
        var choice = ServingDeployment.Choice()
        choice.slice = "v7x-4"
        let serving = try ServingDeployment(shape: model.shape, choice)
        let load = Self.load(6, input: 512, output: 12, concurrency: 6)
        let durations = try [1.0, 0.25].map { speedup in
            let cluster = try EmulatedCluster(model, serving, speedup: speedup, seed: 3)
            defer { try? cluster.close() }
            return LoadSummary(try cluster.measure(load), settings: LoadSettings()).duration
        }
        #expect(abs(durations[1] / durations[0] / 4 - 1) < 0.03, "\(durations)")
    }
}
