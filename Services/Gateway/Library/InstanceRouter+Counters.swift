extension InstanceRouter {
    /// What the ledger holds, for `status` and metrics.
    var counters: [String: Int64] {
        var all = [
            "requests_placed": Int64(controller.placedCount), "requests_queued": Int64(controller.waitingCount),
            "retries_refused": Int64(clamping: controller.retriesRefused),
            "retries_left": Int64(controller.retriesLeft(now: now)),
        ]
        for load in controller.loads {
            let breaker: Int64 =
                switch load.breaker {
                case .closed: 0
                case .halfOpen: 1
                case .open: 2
                }
            let figures: [String: Int64] = [
                "up": load.isServing && load.fault == nil ? 1 : 0, "placed_requests": Int64(load.requests),
                "tokens": Int64(load.tokens),
                "requests_limit": Int64(load.description.capacity.requests),
                "tokens_limit": Int64(load.description.capacity.tokens),
                "breaker_state": breaker,
            ]
            for (name, value) in figures { all["instance\(load.description.id).\(name)"] = value }
        }
        return all
    }
}
