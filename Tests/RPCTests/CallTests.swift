import EventLoop
import Glibc
import Observability
import RPC
import Synchronization
import Testing
import WireProtocol

@Suite(.timeLimit(.minutes(1)))
struct CallTests {
    private static let wait = RPCFixture.wait

    @Test func echo() async throws {
        try await withPair { _, _, client in
            let answer = try await client.call(
                .echo, RPCPayload(metadata: [1, 2, 3], body: filled(77, by: 5)), timeoutMicroseconds: Self.wait)
            #expect(answer.metadata == [1, 2, 3])
            #expect(answer.body.map { Array($0.bytes) } == [UInt8](repeating: 5, count: 77))
            #expect(client.pendingCount == 0)
        }
    }

    @Test func concurrentCallsGetTheirOwnAnswers() async throws {
        try await withPair { _, _, client in
            let answers = try await withThrowingTaskGroup(of: (UInt8, [UInt8]).self) { group in
                for index in UInt8(0)..<200 {
                    group.addTask {
                        let answer = try await client.call(
                            .echo, RPCPayload(metadata: [index]), timeoutMicroseconds: Self.wait)
                        return (index, answer.metadata)
                    }
                }
                return try await group.reduce(into: []) { $0.append($1) }
            }
            #expect(answers.count == 200)
            #expect(answers.allSatisfy { $0.1 == [$0.0] })
        }
    }

    /// Also with a body in segments, whose frames have flags of their own.
    @Test func theTraceAndItsFlagReachTheHandler() async throws {
        try await withPair { _, _, client in
            let trace = TraceContext(high: 0x0123_4567_89AB_CDEF, low: 7, isSampled: true)
            for (sent, size) in [(trace, 0), (trace, 32 << 20), (TraceContext(high: 1, low: 2), 0), (.none, 0)] {
                let answer = try await client.call(
                    .trace, RPCPayload(body: size > 0 ? AlignedBuffer(count: size) : nil),
                    timeoutMicroseconds: Self.wait, trace: sent)
                #expect(String(decoding: answer.metadata, as: UTF8.self) == sent.traceparent(span: 1))
                let stream = try await client.stream(
                    .trace, RPCPayload(), timeoutMicroseconds: Self.wait, trace: sent)
                #expect(try await stream.next() == nil)
            }
        }
    }

    @Test func handlerErrorsReachTheCaller() async throws {
        try await withPair { _, _, client in
            let error = await failure {
                _ = try await client.call(.refuse, RPCPayload(), timeoutMicroseconds: Self.wait)
            }
            #expect(error == RPCError(.limitExceeded, "too many of them"))
        }
    }

    @Test func slowConsumerBoundsTheSender() async throws {
        var limits = RPCLimits()
        limits.streamCredit = 4096
        try await withPair(limits: limits) { fixture, _, client in
            let stream = try await client.stream(.items, RPCPayload(), timeoutMicroseconds: Self.wait)
            var taken = 0
            repeat {
                // An answered call proves that the server has done all it may with the credit it has.
                _ = try await client.call(.echo, RPCPayload(), timeoutMicroseconds: Self.wait)
                let sent = fixture.handler.itemsSent.load(ordering: .sequentiallyConsistent)
                #expect((sent - taken) * TestHandler.itemBytes <= 4096 + TestHandler.itemBytes)
                guard let item = try await stream.next() else { break }
                #expect(item.metadata == [UInt8](repeating: UInt8(taken), count: TestHandler.itemBytes))
                taken += 1
            } while true
            #expect(taken == 100)
            #expect(stream.final?.metadata == [1, 2, 3])
        }
    }

    @Test func taskCancellationReachesTheHandler() async throws {
        try await withPair { fixture, _, client in
            let task = Task.immediate(executorPreference: fixture.clientLoop) {
                await failure {
                    _ = try await client.call(.untilCancelled, RPCPayload(), timeoutMicroseconds: Self.wait)
                }
            }
            await fixture.handler.entered.wait()
            task.cancel()
            #expect(await task.value?.code == .cancelled)
            await fixture.handler.cancelled.wait()
        }
    }

    @Test func cancellingAStreamReachesTheHandler() async throws {
        try await withPair { fixture, server, client in
            let stream = try await client.stream(.untilCancelled, RPCPayload(), timeoutMicroseconds: Self.wait)
            await fixture.handler.entered.wait()
            stream.cancel()
            let error = await failure { _ = try await stream.next() }
            #expect(error?.code == .cancelled)
            await fixture.handler.cancelled.wait()
        }
    }

    @Test func deadlineEndsTheCallAndCancelsTheHandler() async throws {
        try await withPair { fixture, _, client in
            let error = await failure {
                _ = try await client.call(.untilCancelled, RPCPayload(), timeoutMicroseconds: 100_000)
            }
            #expect(error?.code == .deadlineExceeded)
            await fixture.handler.cancelled.wait()
        }
    }

    @Test func callerThatDisconnectsCancelsTheHandler() async throws {
        try await withPair { fixture, server, client in
            let task = Task.immediate(executorPreference: fixture.clientLoop) {
                await failure {
                    _ = try await client.call(.untilCancelled, RPCPayload(), timeoutMicroseconds: Self.wait)
                }
            }
            await fixture.handler.entered.wait()
            client.close()
            #expect(await task.value?.code == .unavailable)
            await fixture.handler.cancelled.wait()
            let left = try await fixture.connectionCount(of: server, reaching: 0)
            #expect(left == 0)
        }
    }

    @Test func fourMebibytesGoBothWays() async throws {
        try await withPair { _, _, client in
            let body = patterned(4 << 20)
            let answer = try await client.call(.echo, RPCPayload(body: body), timeoutMicroseconds: Self.wait)
            #expect(answer.body.map { isEqual($0, body) } == true)
        }
    }

    /// The large body is far beyond what the system buffers, so most of it waits while the small call is made.
    @Test func largeBodiesDoNotHoldUpOtherCalls() async throws {
        try await withPair { fixture, _, client in
            let order = Mutex<[String]>([])
            let body = patterned(48 << 20)
            let task = Task.immediate(executorPreference: fixture.clientLoop) {
                let answer = try await client.call(.echo, RPCPayload(body: body), timeoutMicroseconds: Self.wait)
                order.withLock { $0.append("large") }
                return answer.body.map { isEqual($0, body) } ?? false
            }
            _ = try await client.call(.echo, RPCPayload(metadata: [1]), timeoutMicroseconds: Self.wait)
            order.withLock { $0.append("small") }
            let isWhole = try await task.value
            #expect(isWhole)
            #expect(order.withLock { $0 } == ["small", "large"])
        }
    }
}

private func patterned(_ count: Int) -> AlignedBuffer {
    let buffer = AlignedBuffer(count: count)
    for offset in stride(from: 0, to: count, by: 8) {
        buffer.pointer.storeBytes(of: UInt64(offset) &* 0x9E37_79B9_7F4A_7C15, toByteOffset: offset, as: UInt64.self)
    }
    return buffer
}

private func isEqual(_ a: AlignedBuffer, _ b: AlignedBuffer) -> Bool {
    a.count == b.count && memcmp(a.pointer, b.pointer, a.count) == 0
}

private func filled(_ count: Int, by byte: UInt8) -> AlignedBuffer {
    [UInt8](repeating: byte, count: count).withUnsafeBytes { AlignedBuffer(copying: $0) }
}
