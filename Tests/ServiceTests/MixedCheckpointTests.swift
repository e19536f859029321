import Checkpoint
import EventLoop
import Foundation
import RPC
import TestSupport
import Testing
import WireProtocol

/// Services of two checkpoints that look alike: the same configuration, tensors, shapes and places, other contents.
@Suite(.serialized) struct MixedCheckpointTests {
    private let folder: URL
    private let checkpoint: Checkpoint
    private let other: Checkpoint
    private let reference: GreedyReference

    /// Copies a golden checkpoint and changes one number of one expert.
    init() throws {
        let source = Executables.goldens.appendingPathComponent("base")
        folder = FileManager.default.temporaryDirectory.appendingPathComponent("mixed-\(UUID().uuidString)")
        try FileManager.default.copyItem(at: source, to: folder)
        checkpoint = try Checkpoint(directory: source)
        other = try Self.changed(folder, "model.layers.2.mlp.experts.1.up_proj.weight")
        reference = try GreedyReference(checkpoint)
    }

    private static func changed(_ folder: URL, _ tensor: String) throws -> Checkpoint {
        let checkpoint = try Checkpoint(directory: folder)
        let location = try #require(checkpoint.tensors[tensor])
        let handle = try FileHandle(forUpdating: checkpoint.files[location.file])
        try handle.seek(toOffset: UInt64(location.entry.offset))
        let bytes = try #require(try handle.read(upToCount: 4))
        try handle.seek(toOffset: UInt64(location.entry.offset))
        try handle.write(contentsOf: Data(bytes.map { $0 ^ 0x11 }))
        try handle.close()
        return try Checkpoint(directory: folder)
    }

    private func remove() { try? FileManager.default.removeItem(at: folder) }

    @Test func theyDifferInNothingButTheirContents() throws {
        defer { remove() }
        #expect(other.fingerprint == checkpoint.fingerprint)
        #expect(
            try checkpoint.contents().difference(from: other.contents().summary)
                == "tensor model.layers.2.mlp.experts.1.up_proj.weight")
    }

    /// Instances and replicas die and come back under load, half of the time from the other checkpoint. Those that do are
    /// let in nowhere, and every stream has the bits of the checkpoint it began with.
    @Test(arguments: 1...200) func aServiceOfAnotherCheckpointNeverGivesAStreamAToken(seed: UInt64) throws {
        defer { remove() }
        var random = SeededRandom(seed: seed)
        var plan = MemoryCluster.Plan.storm
        (plan.replicas, plan.other) = (2, other)
        if seed % 3 == 0 { (plan.both, plan.prefill, plan.decode) = (2, 0, 0) }
        let cluster = try MemoryCluster(checkpoint, seed: seed, plan)
        let workload = Workload(seed: seed, vocabulary: 256, requests: 2...3, prompt: 1...64, tokens: 4...8)
        let start = random.next()
        let results = try cluster.withClient { client in
            let mixer = Task(executorPreference: cluster.clientLoop) { try await Self.mix(cluster, seed: start) }
            let results = try await workload.run(client)
            mixer.cancel()
            #expect(try await mixer.value > 0, "seed \(seed): nothing was mixed")
            return results
        }
        for (index, request) in workload.requests.enumerated() {
            let expected = try reference.tokens(request.prompt, count: request.count)
            #expect(results[index] == expected, "seed \(seed), request \(index)")
        }
        try cluster.close()
    }

    /// Kills and restarts until it is cancelled; never the first of a kind, so that one of each lives. Returns how many
    /// came from the other checkpoint.
    private static func mix(_ cluster: MemoryCluster, seed: UInt64) async throws -> Int {
        var random = SeededRandom(seed: seed)
        let roles = cluster.plan.roles
        let spare = roles.indices.filter { roles[..<$0].contains(roles[$0]) }
        var mixed = 0
        while !Task.isCancelled {
            let fromOther = mixed == 0 || Bool.random(using: &random)
            if Bool.random(using: &random) {
                cluster.killExperts(0, 1)
                await cluster.clientLoop.pause(microseconds: UInt64.random(in: 1000...10_000, using: &random))
                try await cluster.restartExperts(0, 1, fromOther: fromOther)
            } else {
                let index = random.pick(Array(spare))
                cluster.kill(index)
                await cluster.clientLoop.pause(microseconds: UInt64.random(in: 1000...10_000, using: &random))
                do {
                    try await cluster.restart(index, fromOther: fromOther)
                    #expect(!fromOther, "instance \(index) of another checkpoint was let in")
                } catch {
                    #expect(fromOther && "\(error)".contains("contents differ"), "\(error)")
                }
            }
            mixed += fromOther ? 1 : 0
            await cluster.clientLoop.pause(microseconds: UInt64.random(in: 1000...10_000, using: &random))
        }
        return mixed
    }
}
