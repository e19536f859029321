import Observability

/// How a counter of `status` is shown as a metric: `Services/METRICS.md` describes each.
struct StatusMetric: Sendable {
    /// What stands behind `ironling_SERVICE_`.
    let name: String
    let kind: MetricSample.Kind
    let help: String
    var labels: [String: String] = [:]
    /// What the counter is multiplied with to be in the metric's unit.
    var scale = 1.0

    private static let plain: [String: StatusMetric] = [
        // every service
        "connections": .init(name: "rpc_connections", kind: .gauge, help: "Open connections of the binary port."),
        "calls": .init(name: "rpc_calls", kind: .gauge, help: "Calls in flight."),
        "streams": .init(name: "rpc_streams", kind: .gauge, help: "Calls in flight whose answer has begun to stream."),
        "tasks": .init(name: "rpc_handlers", kind: .gauge, help: "Handlers of calls that have not returned."),
        "weight_bytes": .init(name: "weight_bytes", kind: .gauge, help: "Memory of the weights."),
        "scratch_bytes": .init(name: "scratch_bytes", kind: .gauge, help: "Memory of intermediate results."),
        "kernel_nanoseconds": .init(
            name: "kernel_seconds_total", kind: .counter, help: "Time spent in kernels.", scale: 1e-9),
        // gateway
        "requests": .init(name: "requests", kind: .gauge, help: "Completions that wait or run."),
        "requests_placed": .init(name: "requests_running", kind: .gauge, help: "Completions placed on instances."),
        "requests_queued": .init(
            name: "requests_waiting", kind: .gauge, help: "Completions that wait for an instance."),
        "http_connections": .init(name: "http_connections", kind: .gauge, help: "Open HTTP connections."),
        "http_tasks": .init(
            name: "http_handlers", kind: .gauge, help: "Handlers of HTTP requests that have not returned."),
        "is_ready": .init(name: "ready", kind: .gauge, help: "1 while a completion could be placed."),
        "up": .init(name: "up", kind: .gauge, help: "1 while the instance takes completions."),
        "placed_requests": .init(name: "requests", kind: .gauge, help: "Completions placed on the instance."),
        "tokens": .init(name: "tokens", kind: .gauge, help: "Tokens set aside at the instance."),
        "tokens_limit": .init(name: "tokens_limit", kind: .gauge, help: "Tokens the instance holds."),
        "requests_limit": .init(name: "requests_limit", kind: .gauge, help: "Requests the instance holds."),
        "breaker_state": .init(
            name: "breaker_state", kind: .gauge, help: "Circuit breaker of the instance: 0 closed, 1 half open, 2 open."
        ),
        // attention
        "requests_running": .init(name: "requests_running", kind: .gauge, help: "Requests that are computed."),
        "requests_waiting": .init(name: "requests_waiting", kind: .gauge, help: "Requests that wait for memory."),
        "requests_receiving": .init(
            name: "requests_receiving", kind: .gauge, help: "Requests whose state is being received."),
        "requests_handing_out": .init(
            name: "requests_handing_off", kind: .gauge, help: "Requests whose state is being handed off."),
        "preemptions": .init(name: "preemptions_total", kind: .counter, help: "Requests that gave their memory up."),
        "slots": .init(name: "slots", kind: .gauge, help: "Recurrent state slots there are."),
        "slots_in_use": .init(name: "slots_in_use", kind: .gauge, help: "Recurrent state slots that are not free."),
        "pages": .init(name: "kv_pages", kind: .gauge, help: "KV pages of 64 tokens there are."),
        "pages_in_use": .init(name: "kv_pages_in_use", kind: .gauge, help: "KV pages that are not free."),
        "dp_rank": .init(name: "dp_rank", kind: .gauge, help: "The instance's data-parallel rank."),
        "steps": .init(name: "steps_total", kind: .counter, help: "Steps of the layer loop."),
        "rows": .init(name: "rows_total", kind: .counter, help: "Token rows computed in steps."),
        "step_nanoseconds": .init(
            name: "steps_seconds_total", kind: .counter, help: "Time spent in steps, calls to others among it.",
            scale: 1e-9),
        "state_bytes": .init(name: "state_bytes", kind: .gauge, help: "Memory of KV pages and recurrent states."),
        "rows_per_step": .init(name: "step_rows_limit", kind: .gauge, help: "Rows a step may have."),
        // experts and sampler
        "maximum_rows": .init(name: "call_rows_limit", kind: .gauge, help: "Rows a call may have."),
        "simulated_calls": .init(
            name: "simulated_calls_total", kind: .counter, help: "Calls whose time on the simulated device is known."),
        "simulated_picoseconds": .init(
            name: "simulated_seconds_total", kind: .counter, help: "Time these calls take on the simulated device.",
            scale: 1e-12),
        "simulating_nanoseconds": .init(
            name: "simulating_seconds_total", kind: .counter, help: "Time spent on simulating the device.",
            scale: 1e-9),
        "simulated_summaries": .init(
            name: "simulated_shapes", kind: .gauge, help: "Shapes of calls whose simulated time is remembered."),
    ]

    /// The metric of a counter; one that nobody has described is shown as it is, which a test does not let pass.
    static func of(counter: String) -> StatusMetric {
        if let known = plain[counter] ?? emulated[counter] { return known }
        if let known = unit(counter) ?? engine(counter) ?? transfer(counter) ?? peer(counter) { return known }
        return StatusMetric(name: counter, kind: .gauge, help: "Counter \(counter).")
    }

    /// `slots_STATE` and `pages_STATE`.
    private static func unit(_ counter: String) -> StatusMetric? {
        for (prefix, name, unit) in [
            ("slots_", "slots_by_state", "Recurrent state slots"), ("pages_", "kv_pages_by_state", "KV pages"),
        ] where counter.hasPrefix(prefix) {
            return StatusMetric(
                name: name, kind: .gauge, help: "\(unit) by state.",
                labels: ["state": String(counter.dropFirst(prefix.count))])
        }
        return nil
    }

    /// `ROLE_replicas`, `ROLE_replicas_ready` and `ROLE_retries` of the services that attention calls.
    private static func peer(_ counter: String) -> StatusMetric? {
        guard let role = ["experts", "sampler"].first(where: { counter.hasPrefix("\($0)_") }) else { return nil }
        let label = ["of": role]
        switch counter.dropFirst(role.count + 1) {
        case "replicas": return StatusMetric(name: "replicas", kind: .gauge, help: "Replicas known.", labels: label)
        case "replicas_ready":
            return StatusMetric(
                name: "replicas_ready", kind: .gauge, help: "Replicas that can be called.", labels: label)
        case "retries":
            return StatusMetric(
                name: "call_retries_total", kind: .counter, help: "Calls that were lost or refused, and sent again.",
                labels: label)
        default: return nil
        }
    }

    /// `simulated_ENGINE_picoseconds`.
    private static func engine(_ counter: String) -> StatusMetric? {
        let parts = counter.split(separator: "_")
        guard parts.count == 3, parts[0] == "simulated", parts[2] == "picoseconds" else { return nil }
        return StatusMetric(
            name: "simulated_engine_seconds_total", kind: .counter,
            help:
                "Time the engines of the simulated device are busy with these calls: the mean device, the busiest link.",
            labels: ["engine": String(parts[1])], scale: 1e-12)
    }

    /// `transfers_SIDE_FIGURE` and `transfers_SIDE_ended_REASON`.
    private static func transfer(_ counter: String) -> StatusMetric? {
        let parts = counter.split(separator: "_", maxSplits: 2).map(String.init)
        guard parts.count == 3, parts[0] == "transfers", ["in", "out"].contains(parts[1]) else { return nil }
        let side = ["side": parts[1]]
        switch parts[2] {
        case "open":
            return StatusMetric(name: "transfers_open", kind: .gauge, help: "Hand-offs under way.", labels: side)
        case "bytes":
            return StatusMetric(
                name: "transfer_bytes_total", kind: .counter, help: "State moved in hand-offs.", labels: side)
        case "stale":
            return StatusMetric(
                name: "transfers_stale_total", kind: .counter, help: "Hand-offs refused because a newer one is known.",
                labels: side)
        case "late":
            return StatusMetric(
                name: "transfer_notes_late_total", kind: .counter,
                help: "Events of hand-offs that were over, which were ignored.", labels: side)
        case let end where end.hasPrefix("ended_"):
            return StatusMetric(
                name: "transfers_ended_total", kind: .counter, help: "Hand-offs that ended, by how.",
                labels: ["side": parts[1], "reason": String(end.dropFirst("ended_".count))])
        default: return nil
        }
    }
}
