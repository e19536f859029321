/// What a live emulation counts.
extension StatusMetric {
    static let emulated: [String: StatusMetric] = [
        "dp_ranks": .init(name: "dp_ranks", kind: .gauge, help: "Data-parallel ranks that share the instance's steps."),
        "emulated": .init(name: "emulated", kind: .gauge, help: "1 where no weights are and only time passes."),
        "emulated_speedup_thousandths": .init(
            name: "emulated_speedup", kind: .gauge, help: "Emulated time per real time.", scale: 1e-3),
        "emulated_steps": .init(name: "emulated_steps_total", kind: .counter, help: "Steps that were paced."),
        "emulated_late_steps": .init(
            name: "emulated_late_steps_total", kind: .counter,
            help: "Paced steps that ended late by more than 2 % of their time."),
        "emulated_step_nanoseconds": .init(
            name: "emulated_seconds_total", kind: .counter, help: "Time that paced steps should have taken.",
            scale: 1e-9),
        "emulated_error_nanoseconds": .init(
            name: "emulated_late_seconds_total", kind: .counter, help: "Time by which paced steps ended late.",
            scale: 1e-9),
        "emulated_worst_error_nanoseconds": .init(
            name: "emulated_latest_seconds", kind: .gauge, help: "The most by which a paced step ended late.",
            scale: 1e-9),
        "emulated_lost_nanoseconds": .init(
            name: "emulated_lost_seconds_total", kind: .counter,
            help: "Time by which the schedule was put off because it could not be kept.", scale: 1e-9),
        "message_nanoseconds": .init(
            name: "emulated_message_seconds_total", kind: .counter,
            help: "Time that paced steps spent on messages to experts and sampler.", scale: 1e-9),
    ]
}
