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
}
