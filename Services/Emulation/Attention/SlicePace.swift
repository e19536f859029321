import AttentionService
import DeploymentModel
import EventLoop
import Scheduling
import ServingSimulator

/// The pace of a simulated slice: a step takes what the deployment's would, and state leaves by the chips' network.
/// Confined to the loop of the steps.
final class SlicePace: StepPace, Sendable {
    private struct State {
        var costs: Deployment
        var schedule: PacingSchedule
        var links: [TransferLink]
        /// When the step that began last should end, nanoseconds.
        var end: UInt64 = 0
        var reported = PacingSchedule.Record()
        var lastReport: UInt64
    }

    private static let reportMicroseconds: UInt64 = 10_000_000

    private let loop: any Loop
    private let speedup: Double
    private let onLate: @Sendable (PacingSchedule.Record) -> Void
    private let state: LoopBound<State>

    /// - onLate: told about steps that were late, at most every ten seconds.
    init(
        _ serving: ServingDeployment, speedup: Double, loop: any Loop,
        onLate: @escaping @Sendable (PacingSchedule.Record) -> Void
    ) {
        self.loop = loop
        self.speedup = speedup
        self.onLate = onLate
        var costs = serving.deployment
        // No step may wait for its own cost to be simulated.
        costs.prepare(rowsPerRank: serving.limits.rowsPerStep)
        state = LoopBound(
            State(
                costs: costs, schedule: PacingSchedule(speedup: speedup),
                links: Array(repeating: serving.link.faster(by: speedup), count: serving.ranks), lastReport: loop.now),
            on: loop)
    }

    var counters: [String: Int64] {
        let record = state.schedule.record
        return [
            "emulated_steps": record.steps, "emulated_late_steps": record.lateSteps,
            "emulated_step_nanoseconds": record.scheduledNanoseconds,
            "emulated_error_nanoseconds": record.errorNanoseconds,
            "emulated_worst_error_nanoseconds": record.worstNanoseconds,
            "emulated_lost_nanoseconds": record.lostNanoseconds,
            "emulated_speedup_thousandths": Int64(speedup * 1000),
        ]
    }

    func begin(_ step: Step, continues: Bool) -> (end: UInt64, microseconds: UInt64) {
        let cost = state.value.costs.cost(of: StepWork(step)).total
        let end = state.value.schedule.begin(picoseconds: cost, now: loop.now * 1000, continues: continues)
        state.end = end
        return (end, max(1, UInt64(Double(max(0, cost)) / 1_000_000 / speedup)))
    }

    func departure(ofTokens tokens: Int, completesPrompt: Bool, rank: Int, end: UInt64) -> UInt64 {
        state.value.links[rank].send(tokens: tokens, completesPrompt: completesPrompt, at: end)
    }

    func finish() async {
        await PreciseSleep.sleep(until: state.end / 1000, on: loop)
        state.value.schedule.finished(now: loop.now * 1000)
        report()
    }

    private func report() {
        guard loop.now - state.lastReport > Self.reportMicroseconds else { return }
        let recent = state.schedule.record.since(state.reported)
        if recent.lateSteps > 0 { onLate(recent) }
        state.reported = state.schedule.record
        state.lastReport = loop.now
    }
}
