import EventLoop
import Foundation
import Glibc
import RPC
import ServiceSupport
import WireProtocol

/// What `up` and `generate` need to know about the services they start.
struct ServiceSetPlan: Sendable {
    var model: String
    var experts = 1
    /// Attention instances that take both parts of a request, only prompts, or only generation.
    var attentions = 1
    var prefills = 0
    var decodes = 0
    var prefillChunk = 512
    var threads = ServiceProcess.defaultThreads
    var decay = "a"
    var host = "127.0.0.1"
    var rpcPort = 0
    var httpPort = 0
    var usesBytes = false
    /// How long the gateway may take to finish its streams at a stop.
    var drainSeconds = 30
    /// Options handed to the gateway as they are.
    var gatewayArguments: [String] = []
    /// Options handed to every attention instance as they are.
    var attentionArguments: [String] = []
    var isQuiet = false
    var slots = 32
    var kvTokens = 65536
    var logLevel = "info"
    var clientSecretFile: String?
    /// First of the ports of `/metrics` of sampler, experts, attention and gateway; 0 for none.
    var metricsPort = 0
    /// True for ports of `/metrics` that are free, where `metricsPort` names none.
    var servesMetrics = false
    /// What is emulated; nil computes.
    var emulation: Emulation?

    /// What the other services have to know of an emulated deployment.
    struct Emulation: Sendable {
        /// Data-parallel ranks of an instance.
        var ranks: Int
        var slice: String
        var expertDevices: Int
    }
}

/// The four services as child processes on loopback, restarted when they die and stopped together. Confined to its
/// loop.
final class ServiceSet: @unchecked Sendable {
    private struct Member {
        let name: String
        var arguments: [String]
        var child: ChildProcess?
        var started: UInt64 = 0
        var policy = RestartPolicy()
    }

    /// Who is stopped after whom: streams in flight need those behind them.
    private static let stopOrder = [["gateway"], ["attention"], ["experts", "sampler"]]

    /// Port of the gateway's binary protocol.
    let rpcPort: Int
    /// Port of the gateway's HTTP face.
    let httpPort: Int
    /// Ports of `/metrics` of sampler, experts, attention and gateway; empty when there are none.
    let metricsPorts: [Int]

    private let loop: UVLoop
    private let isQuiet: Bool
    private let drainSeconds: Int
    private let folder: URL
    private let secretFile: URL
    private var members: [Member] = []
    private let clientSecret: [UInt8]
    private let environment: [String: String]
    private var isReady = false
    private var isStopping = false
    private let exits = Waiters()
    /// Called when a service keeps dying.
    var onFailure: ((String) -> Void)?

    /// Chooses ports and a secret; starts nothing yet.
    init(_ plan: ServiceSetPlan, loop: UVLoop) throws {
        self.loop = loop
        isQuiet = plan.isQuiet
        drainSeconds = plan.drainSeconds
        clientSecret = try ServiceProcess.secret(file: plan.clientSecretFile)
        environment = Self.environmentOfServices()
        Self.removeAbandonedFolders()
        folder = FileManager.default.temporaryDirectory.appendingPathComponent("ironling-\(getpid())")
        try FileManager.default.createDirectory(
            at: folder, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
        secretFile = folder.appendingPathComponent("secret")
        var generator = SystemRandomNumberGenerator()
        let secret = Data((0..<32).map { _ in UInt8.random(in: 0...255, using: &generator) })
        guard
            FileManager.default.createFile(
                atPath: secretFile.path, contents: secret, attributes: [.posixPermissions: 0o600])
        else { throw StartError("\(secretFile.path) cannot be written") }
        let instances = plan.attentions + plan.prefills + plan.decodes
        let serviceCount = plan.experts + instances + 2
        var free = try Self.freePorts(2 * serviceCount + 1, loop)
        metricsPorts =
            plan.metricsPort > 0
            ? (0..<serviceCount).map { plan.metricsPort + $0 }
            : plan.servesMetrics ? (0..<serviceCount).map { _ in free.removeLast() } : []
        rpcPort = plan.rpcPort > 0 ? plan.rpcPort : free.removeLast()
        httpPort = plan.httpPort > 0 ? plan.httpPort : free.removeLast()
        let common = [
            "--model", plan.model, "--secret-file", secretFile.path, "--threads", "\(plan.threads)", "--decay",
            plan.decay, "--parent", "\(getpid())", "--log-level", plan.logLevel, "--mode",
            plan.emulation == nil ? "compute" : "emulate",
        ]
        let samplerPort = free.removeLast()
        let samplerOwn = ["--port", "\(samplerPort)", "--maximum-rows", "\(max(256, plan.slots))"]
        members.append(Member(name: "sampler", arguments: common + samplerOwn))
        let expertPorts = (0..<plan.experts).map { _ in free.removeLast() }
        for (shard, port) in expertPorts.enumerated() {
            let own = [
                "--port", "\(port)", "--shard", "\(shard)", "--shards", "\(plan.experts)", "--maximum-rows",
                "\(plan.prefillChunk + plan.slots)",
            ]
            let simulated = plan.emulation.map { ["--slice", $0.slice, "--ep", "\($0.expertDevices)"] } ?? []
            members.append(Member(name: "experts", arguments: common + own + simulated))
        }
        let roles =
            Array(repeating: "attention", count: plan.attentions) + Array(repeating: "prefill", count: plan.prefills)
            + Array(repeating: "decode", count: plan.decodes)
        let placed = roles.map { (role: $0, port: free.removeLast()) }
        for (rank, (role, port)) in placed.enumerated() {
            let own = [
                "--role", role == "attention" ? "both" : role, "--dp-rank",
                "\(rank * (plan.emulation?.ranks ?? 1))",
                "--port", "\(port)", "--experts", Self.list(expertPorts), "--sampler", "127.0.0.1:\(samplerPort)",
            ]
            let sizes = [
                "--prefill-chunk", "\(plan.prefillChunk)", "--slots", "\(plan.slots)", "--kv-tokens",
                "\(plan.kvTokens)",
            ]
            members.append(
                Member(
                    name: "attention",
                    arguments: common + own + (plan.emulation == nil ? sizes : []) + plan.attentionArguments))
        }
        var gateway = ["--host", plan.host, "--rpc-port", "\(rpcPort)", "--http-port", "\(httpPort)"]
        for role in ["attention", "prefill", "decode"] where roles.contains(role) {
            gateway += ["--\(role)", Self.list(placed.filter { $0.role == role }.map(\.port))]
        }
        let clientSecret = plan.clientSecretFile.map { ["--client-secret-file", $0] } ?? []
        let bytes = plan.usesBytes ? ["--byte-tokenizer"] : []
        members.append(
            Member(name: "gateway", arguments: common + gateway + plan.gatewayArguments + clientSecret + bytes))
        for (index, port) in metricsPorts.enumerated() { members[index].arguments += ["--metrics-port", "\(port)"] }
    }

    /// What the services take from this process's environment: all but the variables that this command has turned into
    /// flags, which mean other things there.
    private static func environmentOfServices() -> [String: String] {
        let others = ["secret-file", "parent", "port", "sampler", "shard", "shards", "maximum-rows"]
        let names = UpCommand.options.options.map(\.name) + others
        let own = Set(names.map { CommandLineOption($0, help: "").environmentName })
        return ProcessInfo.processInfo.environment.filter { !own.contains($0.key) }
    }

    /// Folders of commands that were killed and could not tidy up.
    private static func removeAbandonedFolders() {
        let files = FileManager.default
        let folder = files.temporaryDirectory
        for name in (try? files.contentsOfDirectory(atPath: folder.path)) ?? [] where name.hasPrefix("ironling-") {
            guard let owner = Int32(name.dropFirst("ironling-".count)), Glibc.kill(owner, 0) != 0, errno == ESRCH else {
                continue
            }
            try? files.removeItem(at: folder.appendingPathComponent(name))
        }
    }

    private static func list(_ ports: [Int]) -> String { ports.map { "127.0.0.1:\($0)" }.joined(separator: ",") }

    /// Ports that were free a moment ago.
    private static func freePorts(_ count: Int, _ loop: UVLoop) throws -> [Int] {
        var listeners: [any Listener] = []
        defer { for listener in listeners { listener.close() } }
        for _ in 0..<count { listeners.append(try loop.listen(host: "127.0.0.1", port: 0) { $0.close() }) }
        return listeners.map(\.port)
    }

    /// Starts all services and waits until the gateway answers.
    func start() async throws {
        for index in members.indices { try launch(index) }
        let client = makeClient()
        client.start()
        defer { client.close() }
        try await client.waitReady(timeoutMicroseconds: 120_000_000)
        isReady = true
    }

    /// A client of the gateway's binary port.
    func makeClient(limits: RPCLimits = RPCLimits()) -> RPCClient {
        RPCClient(
            loop: loop, host: "127.0.0.1", port: rpcPort, identity: PeerIdentity(role: "client"), role: "gateway",
            fingerprint: "", secret: clientSecret, limits: limits)
    }

    private func launch(_ index: Int) throws {
        let directory = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath().deletingLastPathComponent()
        let path = directory.appendingPathComponent("ironling-\(members[index].name)").path
        members[index].started = loop.now
        members[index].child = try ChildProcess(
            loop, path: path, arguments: members[index].arguments, environment: environment, showsOutput: !isQuiet,
            ownSession: true
        ) { [weak self] status, signal in self?.ended(index, status, signal) }
    }

    private func ended(_ index: Int, _ status: Int64, _ signal: Int32) {
        members[index].child = nil
        exits.wake()
        guard !isStopping else { return }
        let name = members[index].name
        let end = signal != 0 ? "signal \(signal)" : "status \(status)"
        guard isReady || signal != 0 else {
            onFailure?("\(name) does not start (\(end)); see its message above")
            return
        }
        restart(index, after: "\(name) ended (\(end))")
    }

    private func restart(_ index: Int, after reason: String) {
        guard let pause = members[index].policy.died(started: members[index].started, now: loop.now) else {
            onFailure?("\(reason), \(RestartPolicy.maximumDeaths) times in a row: given up")
            return
        }
        ServiceProcess.complain("ironling: \(reason), starting it again in \(pause / 1000) ms")
        loop.schedule(afterMicroseconds: pause) { [weak self] in
            guard let self, !isStopping else { return }
            do { try launch(index) } catch { restart(index, after: "\(error)") }
        }
    }

    /// Lets all services finish what is in flight, those in front first, and waits for them; one that takes longer than
    /// its own drain does is killed.
    func stop() async {
        isStopping = true
        for tier in Self.stopOrder {
            signal(tier, SIGTERM)
            await exits.wait(loop, atMostMicroseconds: UInt64(drainSeconds + 5) * 1_000_000) { isAlive(tier) }
            signal(tier, SIGKILL)
            await exits.wait(loop, atMostMicroseconds: 5_000_000) { isAlive(tier) }
        }
        removeFolder()
    }

    /// Ends all services at once.
    func kill() {
        isStopping = true
        for tier in Self.stopOrder { signal(tier, SIGKILL) }
        removeFolder()
    }

    private func signal(_ tier: [String], _ number: Int32) {
        for member in members where tier.contains(member.name) { member.child?.signal(number) }
    }

    private func isAlive(_ tier: [String]) -> Bool {
        members.contains { tier.contains($0.name) && $0.child != nil }
    }

    private func removeFolder() { try? FileManager.default.removeItem(at: folder) }
}
