import EventLoop
import Glibc

/// The command lines of a set's services. Ports are chosen by those that listen, so that the lines of a service can be
/// written when the ones it calls have theirs; one that is started again keeps its own.
struct ServiceCommandLines {
    /// A service, and where to find it among others of its kind.
    struct Service {
        /// "sampler", "experts", "attention" or "gateway".
        let name: String
        /// As messages call it, such as "experts 1".
        let title: String
        /// Services of one stage are started together, when those of the stages before hold their ports.
        let stage: Int
    }

    /// The simulated slice that calls of real experts are timed on.
    private static let timingSlice = "v7x-4"

    /// Services in the order of their ports of `/metrics`.
    let services: [Service]
    private let plan: ServiceSetPlan
    private let experts: Range<Int>
    private let instances: [(role: String, index: Int)]

    init(_ plan: ServiceSetPlan) {
        self.plan = plan
        func title(_ name: String, _ index: Int, _ count: Int) -> String { count > 1 ? "\(name) \(index)" : name }
        var services = [Service(name: "sampler", title: "sampler", stage: 0)]
        experts = 1..<plan.experts + 1
        services += (0..<plan.experts).map {
            Service(name: "experts", title: title("experts", $0, plan.experts), stage: 0)
        }
        let roles = [("attention", plan.attentions), ("prefill", plan.prefills), ("decode", plan.decodes)]
        var instances: [(role: String, index: Int)] = []
        for (role, count) in roles {
            for index in 0..<count {
                instances.append((role, services.count))
                services.append(Service(name: "attention", title: title(role, index, count), stage: 1))
            }
        }
        services.append(Service(name: "gateway", title: "gateway", stage: 2))
        self.services = services
        self.instances = instances
    }

    /// Address that a service listens on.
    func host(of index: Int) -> String { services[index].name == "gateway" ? plan.host : "127.0.0.1" }

    /// The arguments of one service.
    ///
    /// - Parameter ports: what each service holds by the name of its option; of the stages before, all is known.
    func arguments(of index: Int, ports: [[String: Int]]) -> [String] {
        var line = common
        func held(_ option: String, else wanted: Int) -> [String] {
            ["--\(option)", "\(ports[index][option] ?? wanted)"]
        }
        switch services[index].name {
        case "sampler": line += held("port", else: 0) + ["--maximum-rows", "\(max(256, plan.slots))"]
        case "experts": line += held("port", else: 0) + expertsArguments(shard: index - experts.lowerBound)
        case "attention": line += held("port", else: 0) + attentionArguments(index, ports)
        default:
            line += held("rpc-port", else: plan.rpcPort) + held("http-port", else: plan.httpPort)
            line += gatewayArguments(ports)
        }
        guard plan.servesMetrics else { return line }
        return line + held("metrics-port", else: plan.metricsPort > 0 ? plan.metricsPort + index : 0)
    }

    private var common: [String] {
        let cache = plan.digestCache.map { ["--digest-cache", $0] } ?? []
        return cache + [
            "--model", plan.model, "--secret-file", "/proc/self/fd/\(ChildProcess.fileDescriptor)", "--threads",
            "\(plan.threads)", "--decay", plan.decay, "--weights", plan.weights, "--parent", "\(getpid())", "--tell",
            "\(ChildProcess.lineDescriptor)", "--log-level", plan.logLevel, "--mode",
            plan.emulation == nil ? "compute" : "emulate",
        ]
    }

    private func expertsArguments(shard: Int) -> [String] {
        let own = [
            "--shard", "\(shard)", "--shards", "\(plan.experts)", "--maximum-rows", "\(plan.prefillChunk + plan.slots)",
        ]
        guard let emulation = plan.emulation else { return own + ["--slice", Self.timingSlice] }
        return own + ["--slice", emulation.slice, "--ep", "\(emulation.expertDevices)"]
    }

    private func attentionArguments(_ index: Int, _ ports: [[String: Int]]) -> [String] {
        let rank = instances.firstIndex { $0.index == index } ?? 0
        let role = instances[rank].role
        let own = [
            "--role", role == "attention" ? "both" : role, "--dp-rank", "\(rank * (plan.emulation?.ranks ?? 1))",
            "--experts", Self.list(experts, ports), "--sampler", Self.list(0..<1, ports),
        ]
        let sizes = [
            "--prefill-chunk", "\(plan.prefillChunk)", "--slots", "\(plan.slots)", "--kv-tokens", "\(plan.kvTokens)",
        ]
        return own + Self.patience + (plan.emulation == nil ? sizes : []) + plan.attentionArguments
    }

    private func gatewayArguments(_ ports: [[String: Int]]) -> [String] {
        var own = ["--host", plan.host] + Self.patience
        for role in ["attention", "prefill", "decode"] {
            let members = instances.filter { $0.role == role }.map(\.index)
            if !members.isEmpty { own += ["--\(role)", Self.list(members, ports)] }
        }
        own += plan.gatewayArguments
        own += plan.clientSecretFile.map { ["--client-secret-file", $0] } ?? []
        return own + (plan.usesBytes ? ["--byte-tokenizer"] : [])
    }

    /// Those that are called may load for hours; should they end, so does the set.
    private static let patience = ["--peer-wait", "604800"]

    private static func list(_ indices: some Sequence<Int>, _ ports: [[String: Int]]) -> String {
        indices.map { "127.0.0.1:\(ports[$0]["port"] ?? 0)" }.joined(separator: ",")
    }
}
