import StatePools

extension MemoryPlan {
    /// The plan of a layout: what is left of the usable HBM after weights and workspace goes to the pools.
    init(
        shape: ModelShape, layout: DeploymentLayout, kernelScratch: Int, activations: Int, costs: CostParameters
    ) throws(DeploymentError) {
        let limit = Int(costs[.memory] * costs[.memoryShare] * 1_073_741_824)
        let weights = WeightBytes(shape: shape, layout: layout)
        let experts = [
            ("routed experts", weights.experts), ("shared experts", weights.shared),
            ("kernel workspace", kernelScratch),
        ]
        var own = [
            ("attention", weights.attention), ("dense MLP", weights.dense), ("routers", weights.router),
            ("embedding and head", weights.vocabulary), ("activations", activations),
        ]
        var others: [Device] = []
        if layout.experts == .colocated {
            own += experts
        } else {
            others = [Device(name: "experts", parts: experts, limit: limit)]
        }
        let name = layout.experts == .colocated ? "attention and experts" : "attention"
        let used = Device(name: name, parts: own, limit: limit)
        for device in [used] + others where device.total > limit {
            throw DeploymentError(
                .memory,
                "a device for \(device.name) (\(layout)) does not fit: \(device.sum), "
                    + "\(Self.text(device.total - limit)) too much")
        }
        do {
            calculator = try PoolCalculator(
                shape: shape.state, tensorParallel: layout.tensorParallel, isPadded: true)
            pools = try calculator.capacity(bytes: max(1, limit - used.total), ratio: costs[.poolRatio])
        } catch {
            throw DeploymentError(
                .memory, "nothing is left for state (\(layout)): \(used.sum); \(error.description)")
        }
        let state = [("recurrent pool", pools.recurrentBytes), ("KV pool", pools.latentBytes)]
        devices = [Device(name: name, parts: own + state, limit: limit)] + others
    }
}
