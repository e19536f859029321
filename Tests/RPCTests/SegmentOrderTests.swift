import EventLoop
import RPC
import Testing
import WireProtocol

@Suite(.timeLimit(.minutes(1)))
struct SegmentOrderTests {
    /// A cancel must not overtake the request it belongs to: that would end the connection, and every call on it.
    @Test func cancelWhileTheRequestIsStillBeingSent() async throws {
        try await withPair { _, _, client in
            let body = AlignedBuffer(count: 32 << 20)
            body.pointer.initializeMemory(as: UInt8.self, repeating: 1, count: body.count)
            let stream = try await client.stream(
                .untilCancelled, RPCPayload(body: body), timeoutMicroseconds: RPCFixture.wait)
            stream.cancel()
            let answer = try await client.call(
                .echo, RPCPayload(metadata: [7]), timeoutMicroseconds: RPCFixture.wait)
            #expect(answer.metadata == [7])
            let large = try await client.call(
                .echo, RPCPayload(body: body), timeoutMicroseconds: RPCFixture.wait)
            #expect(large.body?.count == body.count)
        }
    }

    /// A body may be larger than all that may wait for a peer; what is sent beside it must not end the connection.
    @Test func aLargeAnswerDoesNotEndTheConnectionForTheNext() async throws {
        var limits = RPCLimits()
        limits.pendingWriteBytes = 4 << 20
        try await withPair(limits: limits) { fixture, _, client in
            let done = Signal()
            let large = Task.immediate(executorPreference: fixture.clientLoop) {
                defer { done.fire() }
                let body = AlignedBuffer(count: 64 << 20)
                return try await client.call(.echo, RPCPayload(body: body), timeoutMicroseconds: RPCFixture.wait)
            }
            // The client holds calls back while its own large one waits; the server has to answer them all.
            var answered = 0
            while !done.isFired {
                let error = await failure {
                    _ = try await client.call(
                        .echo, RPCPayload(metadata: [7]), timeoutMicroseconds: RPCFixture.wait)
                }
                #expect(error == nil || error?.code == .notAccepted, "\(error?.message ?? "")")
                if error == nil { answered += 1 } else { await Task.yield() }
            }
            let answer = try await large.value
            #expect(answer.body?.count == 64 << 20)
            #expect(answered > 0)
        }
    }
}
