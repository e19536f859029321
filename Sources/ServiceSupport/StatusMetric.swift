import Observability

/// How a counter of `status` is shown as a metric: `Services/METRICS.md` describes each.
struct StatusMetric: Sendable {
    /// What stands behind `ironling_SERVICE_`.
    let name: String
    let kind: MetricSample.Kind
    let help: String
    let labels: [String: String]
    /// What the counter is multiplied with to be in the metric's unit.
    let scale: Double

    /// What may fall again.
    static func gauge(
        _ name: String, _ help: String, labels: [String: String] = [:], scale: Double = 1
    ) -> StatusMetric {
        StatusMetric(name: name, kind: .gauge, help: help, labels: labels, scale: scale)
    }

    /// What only grows.
    static func counter(
        _ name: String, _ help: String, labels: [String: String] = [:], scale: Double = 1
    ) -> StatusMetric {
        StatusMetric(name: name, kind: .counter, help: help, labels: labels, scale: scale)
    }

    private static let plain: [String: StatusMetric] = [
        // every service
        "connections": .gauge("rpc_connections", "Open connections of the binary port."),
        "calls": .gauge("rpc_calls", "Calls in flight."),
        "streams": .gauge("rpc_streams", "Calls in flight whose answer has begun to stream."),
        "tasks": .gauge("rpc_handlers", "Handlers of calls that have not returned."),
        "weight_bytes": .gauge("weight_bytes", "Memory of the weights."),
        "scratch_bytes": .gauge("scratch_bytes", "Memory of intermediate results."),
        "kernel_nanoseconds": .counter("kernel_seconds_total", "Time spent in kernels.", scale: 1e-9),
        // gateway
        "requests": .gauge("requests", "Completions that wait or run."),
        "requests_placed": .gauge("requests_running", "Completions placed on instances."),
        "requests_queued": .gauge("requests_waiting", "Completions that wait for an instance."),
        "retries_refused": .counter(
            "retries_refused_total", "Completions given up because the budget of retries was spent."),
        "retries_left": .gauge("retries_left", "Completions that could be placed again now."),
        "http_connections": .gauge("http_connections", "Open HTTP connections."),
        "http_tasks": .gauge("http_handlers", "Handlers of HTTP requests that have not returned."),
        "is_ready": .gauge("ready", "1 while a completion could be placed."),
        "up": .gauge("up", "1 while the instance takes completions."),
        "placed_requests": .gauge("requests", "Completions placed on the instance."),
        "tokens": .gauge("tokens", "Tokens set aside at the instance."),
        "tokens_limit": .gauge("tokens_limit", "Tokens the instance holds."),
        "requests_limit": .gauge("requests_limit", "Requests the instance holds."),
        "breaker_state": .gauge("breaker_state", "Circuit breaker of the instance: 0 closed, 1 half open, 2 open."),
        // attention
        "requests_running": .gauge("requests_running", "Requests that are computed."),
        "requests_waiting": .gauge("requests_waiting", "Requests that wait for memory."),
        "requests_receiving": .gauge("requests_receiving", "Requests whose state is being received."),
        "requests_handing_out": .gauge("requests_handing_off", "Requests whose state is being handed off."),
        "preemptions": .counter("preemptions_total", "Requests that gave their memory up."),
        "slots": .gauge("slots", "Recurrent state slots there are."),
        "slots_in_use": .gauge("slots_in_use", "Recurrent state slots of requests."),
        "pages": .gauge("kv_pages", "KV pages of 64 tokens there are."),
        "pages_in_use": .gauge("kv_pages_in_use", "KV pages of requests."),
        "dp_rank": .gauge("dp_rank", "The instance's data-parallel rank."),
        "prefix_hit_tokens": .counter(
            "prefix_hit_tokens_total", "Prompt tokens that were not computed because their state was kept."),
        "prefix_snapshots": .gauge("prefix_snapshots", "Token sequences whose state is kept."),
        "prefix_evictions": .counter("prefix_evictions_total", "Kept states that made room for others."),
        "steps": .counter("steps_total", "Steps of the layer loop."),
        "rows": .counter("rows_total", "Token rows computed in steps."),
        "step_nanoseconds": .counter(
            "steps_seconds_total", "Time spent in steps, calls to others among it.", scale: 1e-9),
        "state_bytes": .gauge("state_bytes", "Memory of KV pages and recurrent states."),
        "rows_per_step": .gauge("step_rows_limit", "Rows a step may have."),
        // experts and sampler
        "maximum_rows": .gauge("call_rows_limit", "Rows a call may have."),
        "simulated_calls": .counter("simulated_calls_total", "Calls whose time on the simulated device is known."),
        "simulated_picoseconds": .counter(
            "simulated_seconds_total", "Time these calls take on the simulated device.", scale: 1e-12),
        "simulating_nanoseconds": .counter(
            "simulating_seconds_total", "Time spent on simulating the device.", scale: 1e-9),
        "simulated_summaries": .gauge("simulated_shapes", "Shapes of calls whose simulated time is remembered."),
    ]

    /// The metric of a counter; one that nobody has described is shown as it is, which a test does not let pass.
    static func of(counter: String) -> StatusMetric {
        if let known = plain[counter] ?? emulated[counter] { return known }
        if let known = unit(counter) ?? engine(counter) ?? transfer(counter) ?? peer(counter) { return known }
        return .gauge(counter, "Counter \(counter).")
    }

    /// `slots_STATE` and `pages_STATE`.
    private static func unit(_ counter: String) -> StatusMetric? {
        for (prefix, name, unit) in [
            ("slots_", "slots_by_state", "Recurrent state slots"), ("pages_", "kv_pages_by_state", "KV pages"),
        ] where counter.hasPrefix(prefix) {
            return .gauge(name, "\(unit) by state.", labels: ["state": String(counter.dropFirst(prefix.count))])
        }
        return nil
    }

    /// `ROLE_replicas`, `ROLE_replicas_ready` and `ROLE_retries` of the services that attention calls.
    private static func peer(_ counter: String) -> StatusMetric? {
        guard let role = ["experts", "sampler"].first(where: { counter.hasPrefix("\($0)_") }) else { return nil }
        let label = ["of": role]
        return switch counter.dropFirst(role.count + 1) {
        case "replicas": .gauge("replicas", "Replicas known.", labels: label)
        case "replicas_ready": .gauge("replicas_ready", "Replicas that can be called.", labels: label)
        case "retries":
            .counter("call_retries_total", "Calls that were lost or refused, and sent again.", labels: label)
        default: nil
        }
    }

    /// `simulated_ENGINE_picoseconds`.
    private static func engine(_ counter: String) -> StatusMetric? {
        let parts = counter.split(separator: "_")
        guard parts.count == 3, parts[0] == "simulated", parts[2] == "picoseconds" else { return nil }
        return .counter(
            "simulated_engine_seconds_total",
            "Time the engines of the simulated device are busy with these calls: the mean device, the busiest link.",
            labels: ["engine": String(parts[1])], scale: 1e-12)
    }

    /// `transfers_SIDE_FIGURE` and `transfers_SIDE_ended_REASON`.
    private static func transfer(_ counter: String) -> StatusMetric? {
        let parts = counter.split(separator: "_", maxSplits: 2).map(String.init)
        guard parts.count == 3, parts[0] == "transfers", ["in", "out"].contains(parts[1]) else { return nil }
        let side = ["side": parts[1]]
        return switch parts[2] {
        case "open": .gauge("transfers_open", "Hand-offs under way.", labels: side)
        case "bytes": .counter("transfer_bytes_total", "State moved in hand-offs.", labels: side)
        case "stale":
            .counter("transfers_stale_total", "Hand-offs refused because a newer one is known.", labels: side)
        case "late":
            .counter(
                "transfer_notes_late_total", "Events of hand-offs that were over, which were ignored.", labels: side)
        case let end where end.hasPrefix("ended_"):
            .counter(
                "transfers_ended_total", "Hand-offs that ended, by how.",
                labels: ["side": parts[1], "reason": String(end.dropFirst("ended_".count))])
        default: nil
        }
    }
}
