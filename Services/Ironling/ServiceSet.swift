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
    var attentions = 1
    var prefillChunk = 512
    var threads = ServiceProcess.defaultThreads
    var decay = "a"
    var host = "127.0.0.1"
    var rpcPort = 0
    var httpPort = 0
    var usesBytes = false
    var isQuiet = false
}

/// The four services as child processes on loopback, restarted when they die and stopped together. Confined to its
/// loop.
final class ServiceSet: @unchecked Sendable {
    private struct Member {
        let name: String
        let arguments: [String]
        var child: ChildProcess?
        var starts = 0
    }

    /// Port of the gateway's binary protocol.
    let rpcPort: Int
    /// Port of the gateway's HTTP face.
    let httpPort: Int

    private let loop: UVLoop
    private let isQuiet: Bool
    private let folder: URL
    private let secretFile: URL
    private var members: [Member] = []
    private var isStopping = false
    private var onStopped: CheckedContinuation<Void, Never>?
    /// Called when a service keeps dying.
    var onFailure: ((String) -> Void)?

    /// Chooses ports and a secret; starts nothing yet.
    init(_ plan: ServiceSetPlan, loop: UVLoop) throws {
        self.loop = loop
        isQuiet = plan.isQuiet
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
        var free = try Self.freePorts(plan.experts + plan.attentions + 3, loop)
        rpcPort = plan.rpcPort > 0 ? plan.rpcPort : free.removeLast()
        httpPort = plan.httpPort > 0 ? plan.httpPort : free.removeLast()
        let common = [
            "--model", plan.model, "--secret-file", secretFile.path, "--threads", "\(plan.threads)", "--decay",
            plan.decay, "--exit-with-parent",
        ]
        let samplerPort = free.removeLast()
        members.append(Member(name: "sampler", arguments: common + ["--port", "\(samplerPort)"]))
        let expertPorts = (0..<plan.experts).map { _ in free.removeLast() }
        for (shard, port) in expertPorts.enumerated() {
            let own = ["--port", "\(port)", "--shard", "\(shard)", "--shards", "\(plan.experts)"]
            members.append(Member(name: "experts", arguments: common + own))
        }
        let attentionPorts = (0..<plan.attentions).map { _ in free.removeLast() }
        for port in attentionPorts {
            let own = [
                "--port", "\(port)", "--experts", Self.list(expertPorts), "--sampler", "127.0.0.1:\(samplerPort)",
                "--prefill-chunk", "\(plan.prefillChunk)",
            ]
            members.append(Member(name: "attention", arguments: common + own))
        }
        let gateway = [
            "--host", plan.host, "--rpc-port", "\(rpcPort)", "--http-port", "\(httpPort)", "--attention",
            Self.list(attentionPorts),
        ]
        members.append(
            Member(name: "gateway", arguments: common + gateway + (plan.usesBytes ? ["--byte-tokenizer"] : [])))
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
    }

    /// A client of the gateway's binary port.
    func makeClient() -> RPCClient {
        RPCClient(
            loop: loop, host: "127.0.0.1", port: rpcPort, identity: PeerIdentity(role: "client"), role: "gateway",
            fingerprint: "", secret: [])
    }

    private func launch(_ index: Int) throws {
        let directory = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath().deletingLastPathComponent()
        let path = directory.appendingPathComponent("ironling-\(members[index].name)").path
        members[index].starts += 1
        members[index].child = try ChildProcess(
            loop, path: path, arguments: members[index].arguments, showsOutput: !isQuiet
        ) { [weak self] status, signal in self?.ended(index, status, signal) }
    }

    private func ended(_ index: Int, _ status: Int64, _ signal: Int32) {
        members[index].child = nil
        guard !isStopping else {
            if members.allSatisfy({ $0.child == nil }) { finishStop() }
            return
        }
        let name = members[index].name
        ServiceProcess.complain(
            "ironling: \(name) ended (\(signal != 0 ? "signal \(signal)" : "status \(status)")), starting it again")
        guard signal != 0 || members[index].starts < 3 else {
            onFailure?("\(name) does not start; see its message above")
            return
        }
        loop.schedule(afterMicroseconds: 200_000) { [weak self] in
            guard let self, !isStopping else { return }
            try? launch(index)
        }
    }

    /// Asks all services to stop and waits for them; after ten seconds they are killed.
    func stop() async {
        isStopping = true
        let running = members.compactMap(\.child)
        guard !running.isEmpty else { return finishStop() }
        for child in running.reversed() { child.signal(SIGTERM) }
        loop.schedule(afterMicroseconds: 10_000_000) { for child in running { child.signal(SIGKILL) } }
        await withCheckedContinuation { onStopped = $0 }
    }

    private func finishStop() {
        try? FileManager.default.removeItem(at: folder)
        onStopped?.resume()
        onStopped = nil
    }
}
