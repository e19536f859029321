import Checkpoint
import Foundation
import RPC
import TestSupport
import Testing

/// A seed stands for one run, whatever process it runs in: hashes are seeded anew in every process and addresses lie
/// elsewhere, and neither may show.
@Suite(.serialized) struct SeedTests {
    /// Where the process that this test starts writes what it did.
    private static let variable = "IRONLING_TEST_TRACE"

    /// Two processes, one of which hashes as every process does and one always the same, run the same seeds.
    @Test func theSameSeedDoesTheSameInAnotherProcess() async throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("seeds-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let files = ["random", "fixed"].map { folder.appendingPathComponent($0) }
        let statuses = try await onThreadOfItsOwn {
            let runs = try zip(files, [nil, "1"]).map { try Self.start(writing: $0, hashing: $1) }
            return runs.map { run in
                run.waitUntilExit()
                return run.terminationStatus
            }
        }
        #expect(statuses == [0, 0])
        let traces = try files.map { try String(contentsOf: $0, encoding: .utf8).split(separator: "\n") }
        #expect(traces[0].count > 500, "\(traces[0].count) lines")
        let parting = zip(traces[0], traces[1]).first { $0 != $1 }
        let isSame = traces[0] == traces[1]
        #expect(isSame, "they part at \(parting?.0 ?? "the end") and \(parting?.1 ?? "the end")")
    }

    private static func start(writing file: URL, hashing: String?) throws -> Process {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
        process.arguments = ["--testing-library", "swift-testing", "--filter", "SeedTests/runsOfSomeSeeds"]
        process.environment = ProcessInfo.processInfo.environment.merging([variable: file.path]) { $1 }
        process.environment?["SWIFT_DETERMINISTIC_HASHING"] = hashing
        process.standardOutput = FileHandle.nullDevice
        try process.run()
        return process
    }

    /// What the processes do: kills, lost replicas, cuts and preemptions.
    @Test(.enabled(if: ProcessInfo.processInfo.environment[variable] != nil, "the test above runs it"))
    func runsOfSomeSeeds() throws {
        let file = try #require(ProcessInfo.processInfo.environment[Self.variable])
        let checkpoint = try Checkpoint(directory: Executables.goldens.appendingPathComponent("base"))
        let lines = try storm(checkpoint, seed: 1) + faults(checkpoint, seed: 2)
        try lines.joined(separator: "\n").write(toFile: file, atomically: true, encoding: .utf8)
    }

    /// Requests, some of which are given up, while instances are killed and started again.
    private func storm(_ checkpoint: Checkpoint, seed: UInt64) throws -> [String] {
        let cluster = try MemoryCluster(checkpoint, seed: seed, .storm)
        let trace = RunTrace(cluster.network)
        let storm = Storm(seed: seed, count: 600, trace: trace)
        let outcome = try cluster.withClient { try await storm.run($0, killingIn: cluster) }
        #expect(outcome.kills > 1, "seed \(seed): \(outcome.kills) kills")
        trace.note(try cluster.withClient { try await ServiceTests.counters($0) })
        try cluster.close()
        trace.note("closed")
        return trace.lines
    }

    /// So little memory that requests are preempted, replicas that come and go, and connections that break.
    private func faults(_ checkpoint: Checkpoint, seed: UInt64) throws -> [String] {
        var plan = MemoryCluster.Plan()
        (plan.both, plan.prefill, plan.decode, plan.hasNames) = (1, 1, 1, true)
        (plan.experts, plan.replicas, plan.slots, plan.pages) = (2, 2, 4, 5)
        plan.limits = { $0.expectedGrowth = 0 }
        let cluster = try MemoryCluster(checkpoint, seed: seed, plan)
        let trace = RunTrace(cluster.network)
        let workload = Workload(seed: seed, vocabulary: 256, requests: 20...20, prompt: 50...64, tokens: 12...20)
        let results = try cluster.withClient { client in
            let faults = Task(executorPreference: cluster.clientLoop) {
                var random = SeededRandom(seed: seed)
                while !Task.isCancelled {
                    let shard = Int.random(in: 0..<2, using: &random)
                    let replica = Int.random(in: 0..<2, using: &random)
                    cluster.killExperts(shard, replica)
                    trace.note("killed replica \(replica) of shard \(shard)")
                    await cluster.clientLoop.pause(microseconds: UInt64.random(in: 1000...20_000, using: &random))
                    try await cluster.restartExperts(shard, replica)
                    trace.note("cut \(cluster.network.cut(port: MemoryCluster.Port.sampler)) ends")
                    await cluster.clientLoop.pause(microseconds: UInt64.random(in: 1000...50_000, using: &random))
                }
            }
            let results = try await workload.run(client)
            faults.cancel()
            try await faults.value
            return results
        }
        for (index, tokens) in results.enumerated() { trace.note("request \(index): \(RunTrace.text(tokens))") }
        trace.note(try cluster.withClient { try await ServiceTests.counters($0) })
        try cluster.close()
        trace.note("closed")
        return trace.lines
    }
}
