import EventLoop
import Foundation
import Glibc
import RPC
import ServiceSupport
import WireProtocol

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
    /// Where the gateway listens.
    private let host: String
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
        host = plan.host
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
        let lines = try ServiceCommandLines(
            plan, secretFile: secretFile.path, free: Self.freePorts(ServiceCommandLines.portCount(plan), loop))
        (rpcPort, httpPort, metricsPorts) = (lines.rpcPort, lines.httpPort, lines.metricsPorts)
        members = lines.all.map { Member(name: $0.service, arguments: $0.arguments) }
    }

    /// What the services take from this process's environment: all but the variables that this command has turned into
    /// flags, which mean other things there.
    private static func environmentOfServices() -> [String: String] {
        let others = ["secret-file", "parent", "report", "port", "sampler", "shard", "shards", "maximum-rows"]
        return OptionEnvironment(ProcessInfo.processInfo.environment)
            .forServices(without: UpCommand.options.options.map(\.name) + others)
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
        let address = HostPort.calling(listener: host, port: rpcPort)
        return RPCClient(
            loop: loop, host: address.host, port: address.port, identity: PeerIdentity(role: "client"), role: "gateway",
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
