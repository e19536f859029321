/// What a live emulation counts.
extension StatusMetric {
    static let emulated: [String: StatusMetric] = [
        "dp_ranks": .gauge("dp_ranks", "Data-parallel ranks that share the instance's steps."),
        "emulated": .gauge("emulated", "1 where no weights are and only time passes."),
        "emulated_speedup_thousandths": .gauge("emulated_speedup", "Emulated time per real time.", scale: 1e-3),
        "emulated_steps": .counter("emulated_steps_total", "Steps that were paced."),
        "emulated_late_steps": .counter(
            "emulated_late_steps_total", "Paced steps that ended late by more than 2 % of their time."),
        "emulated_step_nanoseconds": .counter(
            "emulated_seconds_total", "Time that paced steps should have taken.", scale: 1e-9),
        "emulated_error_nanoseconds": .counter(
            "emulated_late_seconds_total", "Time by which paced steps ended late.", scale: 1e-9),
        "emulated_worst_error_nanoseconds": .gauge(
            "emulated_latest_seconds", "The most by which a paced step ended late.", scale: 1e-9),
        "emulated_lost_nanoseconds": .counter(
            "emulated_lost_seconds_total", "Time by which the schedule was put off because it could not be kept.",
            scale: 1e-9),
        "message_nanoseconds": .counter(
            "emulated_message_seconds_total", "Time that paced steps spent on messages to experts and sampler.",
            scale: 1e-9),
    ]
}
