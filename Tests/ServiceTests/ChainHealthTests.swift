import Checkpoint
import EventLoop
import Foundation
import HTTP
import RPC
import TestSupport
import Testing
import WireProtocol

/// A service that instances need is gone, or stands still: what clients hear, how soon, and how soon it is over.
@Suite(.serialized) struct ChainHealthTests {
    private let checkpoint: Checkpoint

    init() throws { checkpoint = try Checkpoint(directory: Executables.goldens.appendingPathComponent("base")) }

    private struct Answer {
        let status: Int
        let text: String
        let microseconds: UInt64
    }

    private func ask(
        _ cluster: MemoryCluster, _ method: String, _ path: String, _ body: String = ""
    ) async throws -> Answer {
        let loop = cluster.clientLoop
        let client = HTTPClient(loop: loop, host: "memory", port: MemoryCluster.Port.http)
        defer { client.close() }
        let begun = loop.now
        let response = try await client.send(
            HTTPRequest(
                method: method, path: path, headers: [("content-type", "application/json")], body: Array(body.utf8)),
            timeoutMicroseconds: 120_000_000)
        let text = String(decoding: try await response.body(), as: UTF8.self)
        return Answer(status: response.status, text: text, microseconds: loop.now - begun)
    }

    private func complete(_ cluster: MemoryCluster) async throws -> Answer {
        try await ask(cluster, "POST", "/v1/completions", #"{"prompt": [1, 2, 3], "max_tokens": 4, "temperature": 0}"#)
    }

    @Test func withoutASamplerRequestsEndWithTheReasonUntilItIsBack() throws {
        let cluster = try MemoryCluster(checkpoint, seed: 1)
        try cluster.withClient { client in
            #expect(try await complete(cluster).status == 200)
            cluster.killSampler()
            for pause in [0, 1_000_000, 20_000_000] as [UInt64] {
                await client.loop.pause(microseconds: pause)
                let answer = try await complete(cluster)
                #expect(answer.status == 503 && answer.microseconds < 5_000_000, "\(answer) after \(pause)")
                #expect(answer.text.contains("sampler") && answer.text.contains("refused"), "\(answer)")
            }
            let ready = try await ask(cluster, "GET", "/ready")
            #expect(ready.status == 503)
            #expect(ready.text.contains("no sampler can be called by attention 0: 127.0.0.1:7300"), "\(ready)")
            try await cluster.restartSampler()
            await client.loop.pause(microseconds: 2_000_000)
            #expect(try await ask(cluster, "GET", "/ready").status == 200)
            let answer = try await complete(cluster)
            #expect(answer.status == 200 && answer.microseconds < 1_000_000)
        }
        try cluster.close()
    }

    @Test func withoutOneShardOfTheExpertsAsWithoutASampler() throws {
        var plan = MemoryCluster.Plan()
        (plan.both, plan.prefill, plan.decode, plan.experts) = (0, 1, 1, 2)
        let cluster = try MemoryCluster(checkpoint, seed: 2, plan)
        try cluster.withClient { client in
            cluster.killExperts(1, 0)
            await client.loop.pause(microseconds: 1_500_000)
            let ready = try await ask(cluster, "GET", "/ready")
            #expect(ready.status == 503 && ready.text.contains("no experts process 1 can be called"), "\(ready)")
            let answer = try await complete(cluster)
            #expect(answer.status == 503 && answer.microseconds < 5_000_000, "\(answer)")
            try await cluster.restartExperts(1, 0)
            await client.loop.pause(microseconds: 2_000_000)
            #expect(try await complete(cluster).status == 200)
        }
        try cluster.close()
    }

    @Test func withoutAnInstanceAsWithoutASampler() throws {
        let cluster = try MemoryCluster(checkpoint, seed: 3)
        try cluster.withClient { client in
            cluster.kill(0)
            let answer = try await complete(cluster)
            #expect(answer.status == 503 && answer.microseconds < 5_000_000, "\(answer)")
            #expect(answer.text.contains("no attention instance can be called: 127.0.0.1:7100"), "\(answer)")
            let ready = try await ask(cluster, "GET", "/ready")
            #expect(ready.status == 503 && ready.text.contains("no attention instance can be called"), "\(ready)")
            try await cluster.restart(0)
            await client.loop.pause(microseconds: 2_000_000)
            #expect(try await complete(cluster).status == 200)
        }
        try cluster.close()
    }

    /// A stream that runs when its sampler goes ends as well, and is told why.
    @Test func aStreamWhoseSamplerIsGoneForGoodEndsWithinHalfAMinute() throws {
        let cluster = try MemoryCluster(checkpoint, seed: 4)
        try cluster.withClient { client in
            let begun = client.loop.now
            let victim = Task(executorPreference: client.loop) { try await tokens(client, request([1, 2, 3], 400)) }
            await client.loop.pause(microseconds: 50_000)
            cluster.killSampler()
            await #expect {
                _ = try await victim.value
            } throws: {
                let error = $0 as? RPCError
                return error?.code == .unavailable && error?.message.contains("sampler") == true
            }
            #expect(client.loop.now - begun < 30_000_000)
        }
        try cluster.close()
    }

    /// A sampler that is stopped keeps its connections and says nothing.
    @Test(arguments: [MemoryCluster.Port.sampler, MemoryCluster.Port.experts])
    func whatStandsStillIsNoticedAndTold(port: Int) throws {
        let cluster = try MemoryCluster(checkpoint, seed: 5)
        try cluster.withClient { client in
            cluster.network.freezeClients(of: port)
            let first = try await complete(cluster)
            #expect(first.status == 503 && first.microseconds < 30_000_000, "\(first)")
            let second = try await complete(cluster)
            #expect(second.status == 503 && second.microseconds < 5_000_000, "\(second)")
            #expect(try await ask(cluster, "GET", "/ready").status == 503)
            cluster.network.thaw()
            await client.loop.pause(microseconds: 4_000_000)
            #expect(try await complete(cluster).status == 200)
        }
        try cluster.close()
    }
}
