import EventLoop
import Foundation
import Glibc
import RPC
import ServiceSupport
import WireProtocol

/// The four services as child processes on loopback, restarted when they die and stopped together. They end with this
/// process, however it does, and their secret is a file without a name: nothing is left behind.
final class ServiceSet: Sendable {
    private struct Member {
        let service: ServiceCommandLines.Service
        var child: ChildProcess?
        /// What it holds, by the name of the option.
        var ports: [String: Int] = [:]
        var isReady = false
        var started: UInt64 = 0
        var policy = RestartPolicy()
    }

    private struct State {
        var members: [Member]
        var progress = StartProgress()
        var isReady = false
        var isStopping = false
        var onFailure: (@Sendable (String) -> Void)?
    }

    /// Who is stopped after whom: streams in flight need those behind them.
    private static let stopOrder = [["gateway"], ["attention"], ["experts", "sampler"]]

    private let loop: UVLoop
    private let plan: ServiceSetPlan
    private let lines: ServiceCommandLines
    private let secret: MemoryFile
    private let clientSecret: [UInt8]
    private let environment: [String: String]
    private let state: LoopBound<State>
    private let changes = Waiters()

    /// Called when a service keeps dying.
    func onFailure(_ action: @escaping @Sendable (String) -> Void) { state.onFailure = action }

    /// Makes a secret; starts nothing yet.
    init(_ plan: ServiceSetPlan, loop: UVLoop) throws {
        try LoadCheck.run(plan)
        self.loop = loop
        self.plan = plan
        clientSecret = try ServiceProcess.secret(file: plan.clientSecretFile)
        environment = Self.environmentOfServices()
        var generator = SystemRandomNumberGenerator()
        let digits = (0..<64).map { _ in String(Int.random(in: 0...15, using: &generator), radix: 16) }.joined()
        secret = try MemoryFile("ironling-secret", Array(digits.utf8))
        lines = ServiceCommandLines(plan)
        state = LoopBound(State(members: lines.services.map { Member(service: $0) }), on: loop)
    }

    /// What the services take from this process's environment: all but the variables that this command has turned into
    /// flags, which mean other things there.
    private static func environmentOfServices() -> [String: String] {
        let others = ["secret-file", "parent", "tell", "port", "sampler", "shard", "shards", "maximum-rows"]
        return OptionEnvironment(ProcessInfo.processInfo.environment)
            .forServices(without: UpCommand.options.options.map(\.name) + others)
    }

    /// Port of the gateway's binary protocol, once the set has started.
    var rpcPort: Int { state.members.last?.ports["rpc-port"] ?? 0 }

    /// Port of the gateway's HTTP face, once the set has started.
    var httpPort: Int { state.members.last?.ports["http-port"] ?? 0 }

    /// Where `/metrics` of sampler, experts, attention and gateway are, once the set has started; empty when nowhere.
    var metricsAddresses: [HostPort] {
        state.members.indices.compactMap { index in
            state.members[index].ports["metrics-port"].map {
                HostPort.calling(listener: lines.host(of: index), port: $0)
            }
        }
    }

    /// Starts all services and waits until the gateway says that it takes calls.
    ///
    /// - Returns: false when the set was stopped before.
    func start() async throws -> Bool {
        for stage in 0...2 {
            let indices = state.members.indices.filter { state.members[$0].service.stage == stage }
            for index in indices where !state.isStopping { try launch(index) }
            await changes.wait {
                !state.isStopping
                    && indices.contains { state.members[$0].ports[stage == 2 ? "http-port" : "port"] == nil }
            }
        }
        await changes.wait { !state.isStopping && state.members.last?.isReady != true }
        state.isReady = !state.isStopping
        showProgress(nil)
        return state.isReady
    }

    /// A client of the gateway's binary port.
    func makeClient(limits: RPCLimits = RPCLimits()) -> RPCClient {
        let address = HostPort.calling(listener: plan.host, port: rpcPort)
        return RPCClient(
            loop: loop, host: address.host, port: address.port, identity: PeerIdentity(role: "client"), role: "gateway",
            fingerprint: "", secret: clientSecret, limits: limits)
    }

    private func launch(_ index: Int) throws {
        let directory = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath().deletingLastPathComponent()
        let path = directory.appendingPathComponent("ironling-\(state.members[index].service.name)").path
        state.members[index].started = loop.now
        state.members[index].isReady = false
        state.members[index].child = try ChildProcess(
            loop, path: path, arguments: lines.arguments(of: index, ports: state.members.map(\.ports)),
            environment: environment, showsOutput: !plan.isQuiet, ownSession: true, file: secret,
            onLine: { [weak self] line in self?.heard(index, line) },
            onExit: { [weak self] status, signal in self?.ended(index, status, signal) })
    }

    private func heard(_ index: Int, _ line: String) {
        switch ServiceNews(line: line) {
        case .holds(let option, let port): state.members[index].ports[option] = port
        case .progress(let text):
            showProgress(state.progress.note(state.members[index].service.title, text, now: loop.now))
        case .ready:
            state.members[index].isReady = true
            showProgress(state.progress.note(state.members[index].service.title, "", now: loop.now))
        case nil: return
        }
        changes.wake()
    }

    /// In one line that is replaced on a terminal, elsewhere in lines that stay.
    private func showProgress(_ line: String?) {
        if isatty(STDERR_FILENO) == 1 {
            ServiceProcess.progress(state.progress.line)
        } else if let line, !plan.isQuiet {
            ServiceProcess.complain("ironling: \(line)")
        }
    }

    private func ended(_ index: Int, _ status: Int64, _ signal: Int32) {
        state.members[index].child = nil
        changes.wake()
        guard !state.isStopping else { return }
        let title = state.members[index].service.title
        _ = state.progress.note(title, "", now: loop.now)
        let end = signal != 0 ? "signal \(signal)" : "status \(status)"
        guard state.isReady || signal != 0 else {
            state.onFailure?("\(title) does not start (\(end)); see its message above")
            return
        }
        restart(index, after: "\(title) ended (\(end))")
    }

    private func restart(_ index: Int, after reason: String) {
        guard let pause = state.members[index].policy.died(started: state.members[index].started, now: loop.now) else {
            state.onFailure?("\(reason), \(RestartPolicy.maximumDeaths) times in a row: given up")
            return
        }
        ServiceProcess.complain("ironling: \(reason), starting it again in \(pause / 1000) ms")
        loop.schedule(afterMicroseconds: pause) { [weak self] in
            guard let self, !state.isStopping else { return }
            do { try launch(index) } catch { restart(index, after: "\(error)") }
        }
    }

    /// Lets all services finish what is in flight, those in front first, and waits for them; one that takes longer than
    /// its own drain does is killed. Before they are ready there is nothing to finish.
    func stop() async {
        state.isStopping = true
        changes.wake()
        if !state.isReady { kill() }
        for tier in Self.stopOrder {
            signal(tier, SIGTERM)
            await changes.wait(loop, atMostMicroseconds: UInt64(plan.drainSeconds + 5) * 1_000_000) { isAlive(tier) }
            signal(tier, SIGKILL)
            await changes.wait(loop, atMostMicroseconds: 5_000_000) { isAlive(tier) }
        }
    }

    /// Ends all services at once.
    func kill() {
        state.isStopping = true
        for tier in Self.stopOrder { signal(tier, SIGKILL) }
    }

    private func signal(_ tier: [String], _ number: Int32) {
        for member in state.members where tier.contains(member.service.name) { member.child?.signal(number) }
    }

    private func isAlive(_ tier: [String]) -> Bool {
        state.members.contains { tier.contains($0.service.name) && $0.child != nil }
    }
}
