import Checkpoint
import EventLoop
import EventLoopTesting
import HybridModel
import Numerics
import RPC
import SamplerService
import Serving
import Testing
import WireProtocol

/// A row that no token can be chosen for belongs to one request, and only that one may fail.
@Suite(.serialized, .timeLimit(.minutes(2))) struct RefusedRowTests {
    private static func row(_ position: UInt64) -> SampleRow {
        var sampling = Sampling()
        (sampling.temperature, sampling.seed) = (1, 9)
        return SampleRow(sampling: sampling, position: position, topLogprobs: 3)
    }

    /// Rows of small numbers; those of `broken` are not numbers.
    private static func body(rows: Int, hidden: Int, broken: Set<Int>) throws -> AlignedBuffer {
        let body = AlignedBuffer(count: 4 * rows * hidden)
        let out = try #require(body.elements(Float.self, at: 0, count: rows * hidden))
        for index in 0..<rows * hidden {
            out[index] = broken.contains(index / hidden) ? .nan : Float(index % 37) / 37 - 0.5
        }
        return body
    }

    @Test func aRowWhoseLogitsAreNoNumbersIsRefusedAlone() throws {
        let checkpoint = try Checkpoint(directory: Executables.goldens.appendingPathComponent("base"))
        let hidden = checkpoint.configuration.hiddenSize
        let network = MemoryNetwork(seed: 1)
        let loop = network.makeLoop()
        let service = SamplerService(
            model: try HeadModel(checkpoint: checkpoint, team: ThreadTeam(threadCount: 1), maximumRows: 8),
            fingerprint: "f", instanceID: "sampler-0", loop: loop)
        let replies: [SampleReply]? = try network.run(on: loop) {
            _ = try await service.listen(host: "memory", port: 7300, secret: [1])
            let client = RPCClient(
                loop: loop, host: "memory", port: 7300, identity: PeerIdentity(role: "attention", fingerprint: "f"),
                role: "sampler", fingerprint: "f", secret: [1])
            client.start()
            var replies: [SampleReply] = []
            for broken in [[], [1], [0, 1, 2, 3]] as [Set<Int>] {
                let request = SampleRequest(hidden: UInt32(hidden), rows: (0..<4).map { Self.row($0) })
                let payload = RPCPayload(
                    metadata: request.encoded(), body: try Self.body(rows: 4, hidden: hidden, broken: broken))
                let answer = try await client.call(.sample, payload, timeoutMicroseconds: 5_000_000)
                replies.append(try SampleReply(decoding: answer.metadata))
            }
            client.close()
            service.close()
            return replies
        }
        let outcomes = try #require(replies).map(\.outcomes)
        for (row, outcome) in outcomes[0].enumerated() where row != 1 { #expect(outcomes[1][row] == outcome) }
        for outcome in outcomes[2] + [outcomes[1][1]] {
            guard case .refused(let failure) = outcome else {
                Issue.record("\(outcome)")
                continue
            }
            #expect(failure.code == .internal && failure.message.contains("not a number"), "\(failure)")
        }
        for outcome in outcomes[0] {
            guard case .token = outcome else {
                Issue.record("\(outcome)")
                continue
            }
        }
        network.runUntilIdle()
    }

    @Test(arguments: [true, false]) func aRequestThatBansEveryTokenEndsAlone(isHandedOver: Bool) throws {
        let generated = try GeneratedCheckpoint([
            "vocab_size": 48, "num_hidden_layers": 4, "moe_intermediate_size": 64, "num_experts": 8,
        ])
        defer { generated.remove() }
        let checkpoint = try Checkpoint(directory: generated.folder)
        var plan = MemoryCluster.Plan()
        if isHandedOver { (plan.both, plan.prefill, plan.decode) = (0, 1, 1) }
        plan.slots = 12
        let cluster = try MemoryCluster(checkpoint, seed: 3, plan)
        let workload = Workload(seed: 3, vocabulary: 48, requests: 5...5, prompt: 4...60, tokens: 12...24)
        // The gateway would refuse such a request before an instance saw it.
        let direct = cluster.makeAttentionClient(isHandedOver ? 1 : 0)
        let (results, refusals) = try cluster.withClient { client in
            direct.start()
            defer { direct.close() }
            let guilty = (0..<4).map { index in
                Task(executorPreference: client.loop) { () -> RPCError? in
                    await client.loop.pause(microseconds: UInt64(index) * 6000)
                    var request = Request(prompt: [1, 2, 3], maximumTokens: 8)
                    (request.stopTokens, request.minimumTokens) = (Array(0..<48), 4)
                    let message = TokensRequest(
                        request, prefill: isHandedOver ? "127.0.0.1:\(MemoryCluster.Port.attention)" : "")
                    do throws(RPCError) {
                        let stream = try await direct.stream(
                            .generateTokens, RPCPayload(metadata: message.encoded()), timeoutMicroseconds: 60_000_000)
                        while try await stream.next() != nil {}
                    } catch { return error }
                    return nil
                }
            }
            let results = try await workload.run(client)
            var refusals: [RPCError?] = []
            for task in guilty { refusals.append(await task.value) }
            return (results, refusals)
        }
        for refusal in refusals {
            #expect(refusal?.code == .invalidArgument && refusal?.message.contains("every token is banned") == true)
        }
        let reference = try GreedyReference(checkpoint)
        for (index, request) in workload.requests.enumerated() {
            let expected = try reference.tokens(request.prompt, count: request.count)
            #expect(results[index] == expected, "request \(index)")
        }
        try cluster.close()
    }

    /// What an instance refuses is never told to be the client's fault, so the gateway must know it before.
    @Test func aRequestThatBansEveryTokenIsRefusedByTheGatewayItself() throws {
        let generated = try GeneratedCheckpoint([
            "vocab_size": 48, "num_hidden_layers": 4, "moe_intermediate_size": 64, "num_experts": 8,
        ])
        defer { generated.remove() }
        let cluster = try MemoryCluster(try Checkpoint(directory: generated.folder), seed: 4)
        let refusals = try cluster.withClient { client in
            var refusals: [RPCError?] = []
            for minimum in [4, 0] {
                var message = request([1, 2, 3], 8)
                (message.request.stopTokens, message.request.minimumTokens) = (Array(0..<48), minimum)
                do {
                    _ = try await tokens(client, message)
                    refusals.append(nil)
                } catch { refusals.append(error as? RPCError) }
            }
            return refusals
        }
        #expect(refusals[0]?.code == .invalidArgument)
        #expect(refusals[0]?.message.contains("every token is banned") == true, "\(refusals[0]?.message ?? "")")
        #expect(refusals[1] == nil, "without min_tokens the first token ends the answer")
        try cluster.close()
    }
}
