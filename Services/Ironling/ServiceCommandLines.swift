import Glibc

/// The command lines of a set's services: its plan, with a port for everything that listens.
struct ServiceCommandLines {
    /// Port of the gateway's binary protocol.
    let rpcPort: Int
    /// Port of the gateway's HTTP face.
    let httpPort: Int
    /// Ports of `/metrics`, in the order of `all`; empty when there are none.
    let metricsPorts: [Int]
    private let plan: ServiceSetPlan
    private let secretFile: String
    private let samplerPort: Int
    private let expertPorts: [Int]
    private let instances: [(role: String, port: Int)]

    /// - Parameter free: at least `portCount` ports.
    init(_ plan: ServiceSetPlan, secretFile: String, free: [Int]) {
        self.plan = plan
        self.secretFile = secretFile
        var free = free.makeIterator()
        func port() -> Int { free.next() ?? 0 }
        let count = Self.serviceCount(plan)
        metricsPorts =
            plan.metricsPort > 0
            ? (0..<count).map { plan.metricsPort + $0 } : plan.servesMetrics ? (0..<count).map { _ in port() } : []
        rpcPort = plan.rpcPort > 0 ? plan.rpcPort : port()
        httpPort = plan.httpPort > 0 ? plan.httpPort : port()
        samplerPort = port()
        expertPorts = (0..<plan.experts).map { _ in port() }
        let roles = [("attention", plan.attentions), ("prefill", plan.prefills), ("decode", plan.decodes)]
        instances = roles.flatMap { role, count in (0..<count).map { _ in (role, port()) } }
    }

    /// Ports that a plan may take.
    static func portCount(_ plan: ServiceSetPlan) -> Int { 2 * serviceCount(plan) + 1 }

    private static func serviceCount(_ plan: ServiceSetPlan) -> Int {
        plan.experts + plan.attentions + plan.prefills + plan.decodes + 2
    }

    /// Services with their arguments, in the order in which they are started.
    var all: [(service: String, arguments: [String])] {
        var lines = [(service: "sampler", arguments: sampler)]
        lines += expertPorts.indices.map { ("experts", experts(shard: $0)) }
        lines += instances.indices.map { ("attention", attention($0)) }
        lines.append(("gateway", gateway))
        for (index, port) in metricsPorts.enumerated() { lines[index].arguments += ["--metrics-port", "\(port)"] }
        return lines
    }

    private var common: [String] {
        [
            "--model", plan.model, "--secret-file", secretFile, "--threads", "\(plan.threads)", "--decay", plan.decay,
            "--parent", "\(getpid())", "--log-level", plan.logLevel, "--mode",
            plan.emulation == nil ? "compute" : "emulate",
        ]
    }

    private var sampler: [String] {
        common + ["--port", "\(samplerPort)", "--maximum-rows", "\(max(256, plan.slots))"]
    }

    private func experts(shard: Int) -> [String] {
        let own = [
            "--port", "\(expertPorts[shard])", "--shard", "\(shard)", "--shards", "\(plan.experts)", "--maximum-rows",
            "\(plan.prefillChunk + plan.slots)",
        ]
        return common + own + (plan.emulation.map { ["--slice", $0.slice, "--ep", "\($0.expertDevices)"] } ?? [])
    }

    private func attention(_ index: Int) -> [String] {
        let (role, port) = instances[index]
        let own = [
            "--role", role == "attention" ? "both" : role, "--dp-rank", "\(index * (plan.emulation?.ranks ?? 1))",
            "--port", "\(port)", "--experts", Self.list(expertPorts), "--sampler", Self.list([samplerPort]),
        ]
        let sizes = [
            "--prefill-chunk", "\(plan.prefillChunk)", "--slots", "\(plan.slots)", "--kv-tokens", "\(plan.kvTokens)",
        ]
        return common + own + (plan.emulation == nil ? sizes : []) + plan.attentionArguments
    }

    private var gateway: [String] {
        var own = ["--host", plan.host, "--rpc-port", "\(rpcPort)", "--http-port", "\(httpPort)"]
        for role in ["attention", "prefill", "decode"] {
            let ports = instances.filter { $0.role == role }.map(\.port)
            if !ports.isEmpty { own += ["--\(role)", Self.list(ports)] }
        }
        own += plan.gatewayArguments
        own += plan.clientSecretFile.map { ["--client-secret-file", $0] } ?? []
        return common + own + (plan.usesBytes ? ["--byte-tokenizer"] : [])
    }

    private static func list(_ ports: [Int]) -> String { ports.map { "127.0.0.1:\($0)" }.joined(separator: ",") }
}
