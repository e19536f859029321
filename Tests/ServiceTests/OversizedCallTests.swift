import Emulation
import EventLoop
import RPC
import Serving
import ServingSimulator
import Testing
import WireProtocol

/// Calls between services that would outgrow a frame or the memory, sent by requests or peers that may be sent.
@Suite struct OversizedCallTests {
    private func cluster() throws -> EmulatedCluster {
        let model = try EmulatedModel("ling-2.6-1t")
        return try EmulatedCluster(model, ServingDeployment(shape: model.shape, ServingDeployment.Choice()), seed: 1)
    }

    /// A frame has room for the adjustments of some hundred and twenty rows; a step may have many more.
    @Test func biasesOfManyRequestsDoNotFailTheirStep() throws {
        let cluster = try cluster()
        let client = RPCClient(
            loop: cluster.clientLoop, host: "memory", port: 7000, identity: PeerIdentity(role: "client"),
            role: "gateway", fingerprint: "", secret: [])
        let counts = try cluster.with(client) { client in
            try await withThrowingTaskGroup(of: Int.self) { group in
                for index in 0..<160 {
                    group.addTask(executorPreference: client.loop) {
                        var message = request([UInt32(index)], 3)
                        message.request.sampling.logitBias = (0..<1024).map { TokenBias(id: $0, bias: 1) }
                        return try await tokens(client, message).count
                    }
                }
                return try await group.reduce(into: [Int]()) { $0.append($1) }
            }
        }
        #expect(counts == Array(repeating: 3, count: 160))
        try cluster.close()
    }

    /// Few bytes can ask for an answer that no machine has the memory for.
    @Test func anExpertsCallWithAnAnswerBeyondTheLimitIsRefused() throws {
        let cluster = try cluster()
        let client = RPCClient(
            loop: cluster.clientLoop, host: "memory", port: 7200, identity: PeerIdentity(role: "client"),
            role: "experts", fingerprint: "", secret: [1])
        let code = try cluster.with(client) { client in
            let call = ExpertsRequest(
                layer: 10, rowCount: 1, hidden: 8192, pairCount: 65536 * 64, sharedCount: 0, combinedTopK: 0)
            do {
                _ = try await client.call(
                    .expertsForward,
                    RPCPayload(metadata: call.encoded(), body: AlignedBuffer(count: call.bodyOffsets[5])),
                    timeoutMicroseconds: 10_000_000)
                return ErrorCode?.none
            } catch let error as RPCError { return error.code }
        }
        #expect(code == .limitExceeded)
        try cluster.close()
    }
}
