import AttentionService
import EventLoop
import Observability
import Scheduling
import ServiceSupport
import ServingSimulator

extension PacedInstance {
    /// All data-parallel ranks of a simulated slice, whose steps run on `loop`.
    ///
    /// - speedup: emulated time per real time.
    public init(
        emulating model: EmulatedModel, serving: ServingDeployment, speedup: Double = 1, elidesBodies: Bool = true,
        loop: any Loop, onLate: @escaping @Sendable (PacingSchedule.Record) -> Void = { _ in }
    ) {
        self.init(
            configuration: model.configuration, fingerprint: model.fingerprint,
            limits: serving.limits.faster(by: speedup), ranks: serving.ranks, slots: serving.slots,
            pages: serving.pages, elidesBodies: elidesBodies,
            pace: SlicePace(serving, speedup: speedup, loop: loop, onLate: onLate))
    }
}

extension ServiceEmulation {
    /// What the attention service's command line asks to be emulated.
    ///
    /// - Throws: `UsageError`, `CheckpointError` or `DeploymentError` with the sentence to print.
    public static func attention(
        _ values: OptionValues, _ hot: any Loop, _ logger: Logger
    ) throws -> (PacedInstance, String) {
        let model = try EmulatedModel(try values.required("model"))
        var choice = try EmulationOptions.choice(values)
        choice.waiting = try values.integer("queue", in: 0...65536)
        let serving = try ServingDeployment(shape: model.shape, choice)
        let speedup = try EmulationOptions.speedup(values)
        let instance = PacedInstance(
            emulating: model, serving: serving, speedup: speedup,
            elidesBodies: try EmulationOptions.elidesBodies(values), loop: hot, onLate: { tell($0, logger) })
        let bodies = instance.elidesBodies ? "without their bodies" : "with zeros of their real sizes"
        let pace = speedup == 1 ? "" : ", \(speedup) times as fast"
        return (
            instance,
            "emulating \(model.name) on \(serving.deployment.layout)\(pace); \(serving.ranks) ranks of "
                + "\(serving.slots) requests and \(serving.pages * 64) tokens; messages go \(bodies)"
        )
    }

    /// Says that real time was not kept, and by how much.
    private static func tell(_ record: PacingSchedule.Record, _ logger: Logger) {
        func percent(_ share: Double) -> Double { (share * 1e4).rounded() / 100 }
        logger.warning(
            record.lostNanoseconds > 0 ? "real time cannot be kept" : "steps ended late",
            [
                "steps": LogValue(record.steps), "late_steps": LogValue(record.lateSteps),
                "mean_error_percent": LogValue(describing: percent(record.meanError)),
                "worst_milliseconds": LogValue(describing: Double(record.worstNanoseconds / 1000) / 1000),
                "lost_milliseconds": LogValue(record.lostNanoseconds / 1_000_000),
                "percent_of_real_time": LogValue(describing: percent(record.realTimeShare)),
            ])
    }
}

extension SchedulerLimits {
    /// The same limits where emulated time runs `factor` times faster than real time. The wait for memory is the
    /// client's time and stays.
    func faster(by factor: Double) -> SchedulerLimits {
        var limits = self
        limits.gatherMicroseconds = UInt64(Double(gatherMicroseconds) / max(1e-6, factor))
        limits.gatherLimitMicroseconds = UInt64(Double(gatherLimitMicroseconds) / max(1e-6, factor))
        return limits
    }
}
