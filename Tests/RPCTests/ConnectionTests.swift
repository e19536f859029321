import EventLoop
import EventLoopTesting
import RPC
import Synchronization
import TestSupport
import Testing
import WireProtocol

@Suite(.timeLimit(.minutes(1)))
struct ConnectionTests {
    private static let wait = RPCFixture.wait

    @Test func closingServerFailsCallsAndANewOneOnItsPortIsFound() async throws {
        try await withServer { fixture, server, port in
            let client = try await fixture.client(port: port)
            let task = Task(executorPreference: fixture.clientLoop) {
                await failure {
                    _ = try await client.call(.untilReleased, RPCPayload(), timeoutMicroseconds: Self.wait)
                }
            }
            await fixture.handler.entered.wait()
            try await on(fixture.serverLoop) { server.close() }
            let error = await task.value
            #expect(error?.code == .unavailable)
            #expect(error?.isRetryable == true)
            fixture.handler.release.fire()

            let (successor, same) = try await fixture.listen(port: port)
            #expect(same == port)
            try await client.waitReady(timeoutMicroseconds: Self.wait)
            let answer = try await client.call(.echo, RPCPayload(metadata: [9]), timeoutMicroseconds: Self.wait)
            #expect(answer.metadata == [9])
            client.close()
            try await on(fixture.serverLoop) { successor.close() }
        }
    }

    @Test func aCallThatCanNeverBeSentIsNotWorthARetry() async throws {
        try await withPair { fixture, _, client in
            client.close()
            let error = await failure {
                _ = try await client.call(.echo, RPCPayload(), timeoutMicroseconds: Self.wait)
            }
            #expect(error?.code == .cancelled)
            #expect(error?.isRetryable == false, "a caller that retries would spin")
        }
    }

    @Test func drainWaitsForCallsInFlightAndTakesNoMore() async throws {
        try await withPair { fixture, server, client in
            let task = Task.immediate(executorPreference: fixture.clientLoop) {
                try await client.call(.untilReleased, RPCPayload(metadata: [4]), timeoutMicroseconds: Self.wait)
            }
            await fixture.handler.entered.wait()
            let drained = Signal()
            _ = try await on(fixture.serverLoop) {
                Task.immediate(executorPreference: fixture.serverLoop) {
                    await server.drain(withinMicroseconds: Self.wait)
                    drained.fire()
                }
            }
            let error = await failure {
                _ = try await client.call(.echo, RPCPayload(), timeoutMicroseconds: 50_000)
            }
            #expect(error?.isRetryable == true)
            #expect(!drained.isFired)
            fixture.handler.release.fire()
            let answer = try await task.value
            #expect(answer.metadata == [4])
            await drained.wait()
            #expect(!client.isReady)
        }
    }

    @Test func drainGivesUpInTime() async throws {
        try await withPair { fixture, server, client in
            let task = Task.immediate(executorPreference: fixture.clientLoop) {
                try await client.call(.untilReleased, RPCPayload(metadata: [4]), timeoutMicroseconds: Self.wait)
            }
            await fixture.handler.entered.wait()
            try await on(fixture.serverLoop) { await server.drain(withinMicroseconds: 20_000) }
            fixture.handler.release.fire()
            let answer = try await task.value
            #expect(answer.metadata == [4])
        }
    }

    private func refusal(
        role: String = "attention", expecting: String = "sampler", fingerprint: String = "f00d",
        secret: [UInt8] = RPCFixture.secret
    ) async throws -> String {
        let message = Mutex("no error")
        try await withServer { fixture, _, port in
            let client = try await fixture.client(
                port: port, role: role, expecting: expecting, fingerprint: fingerprint, secret: secret)
            // It goes on trying; the first answer says what it wants to know.
            let end = fixture.clientLoop.now + Self.wait
            while client.lastError == nil, fixture.clientLoop.now < end {
                await fixture.clientLoop.pause(microseconds: 1000)
            }
            let error = await failure { try await client.waitReady(timeoutMicroseconds: 20_000) }
            client.close()
            #expect(error?.code == .unavailable)
            message.withLock { $0 = error?.message ?? "no error" }
        }
        return message.withLock { $0 }
    }

    @Test func otherFingerprintIsRefused() async throws {
        let message = try await refusal(fingerprint: "beef")
        #expect(message.contains("model fingerprint differs"))
        #expect(message.contains("beef") && message.contains("f00d"))
    }

    @Test func otherSecretIsRefused() async throws {
        #expect(try await refusal(secret: Array("wrong".utf8)).contains("shared secret differs"))
        #expect(try await refusal(secret: []).contains("shared secret differs"))
    }

    @Test func otherRoleIsRefused() async throws {
        #expect(
            try await refusal(role: "gateway").contains("peer has role \"gateway\", wanted is attention"))
        #expect(
            try await refusal(expecting: "experts").contains("peer has role \"sampler\", wanted is experts"))
    }

    private static let otherVersion =
        "a frame of protocol version 1 came to a side that speaks version 2: "
        + "both sides must have the same version, so update the older one"

    @Test func aClientOfAnotherVersionIsToldInFramesThatItReads() async throws {
        try await withServer { fixture, _, port in
            let bytes = try await answer(to: helloFrame(version: 1), fixture.clientLoop, port)
            #expect(bytes.count > FrameHeader.byteCount && bytes[4] == 1 && bytes[5] == FrameKind.error.rawValue)
            #expect(
                try Failure(decoding: Array(bytes.dropFirst(FrameHeader.byteCount)))
                    == Failure(code: .mismatch, message: Self.otherVersion))
        }
    }

    @Test func aServerOfAnotherVersionIsNamedToItsCallers() throws {
        let network = MemoryNetwork(seed: 4)
        let loop = network.makeLoop()
        let sentence: String? = try network.run(on: loop) {
            let refusal = Failure(code: .invalidArgument, message: "protocol version is 2, this peer speaks 1")
            let listener = try loop.listen(host: "server", port: 999) { stream in
                stream.start(onBytes: { _ in }, onClose: { _ in })
                stream.write(frame(.error, version: 1, metadata: refusal.encoded()))
            }
            let client = RPCClient(
                loop: loop, host: "server", port: 999, identity: PeerIdentity(role: "attention", fingerprint: "f00d"),
                role: "sampler", fingerprint: "f00d", secret: RPCFixture.secret)
            client.start()
            let error = await failure { try await client.waitReady(timeoutMicroseconds: 1_000_000) }
            client.close()
            listener.close()
            return error?.message ?? "it was called"
        }
        #expect(sentence?.contains(Self.otherVersion) == true, "\(sentence ?? "")")
    }

    @Test(arguments: [11, 12, 13])
    func garbageNeverHarmsTheServer(seed: UInt64) async throws {
        try await withServer { fixture, server, port in
            var random = SeededRandom(seed: seed)
            for _ in 0..<60 {
                // All of these are answered by a refusal; a flipped bit in the hello never passes the checksums.
                _ = try await answer(to: Self.garbage(&random), fixture.clientLoop, port)
            }
            #expect(try await fixture.connectionCount(of: server, reaching: 0) == 0, "seed \(seed)")
            let client = try await fixture.client(port: port)
            let answer = try await client.call(.echo, RPCPayload(metadata: [7]), timeoutMicroseconds: Self.wait)
            client.close()
            #expect(answer.metadata == [7], "seed \(seed)")
            #expect(try await fixture.connectionCount(of: server, reaching: 0) == 0, "seed \(seed)")
        }
    }

    private static func garbage(_ random: inout SeededRandom) -> [UInt8] {
        switch random.next() % 4 {
        case 0: return random.bytes(64 + Int(random.next() % 5000))
        case 1:
            var bytes = helloFrame()
            bytes[Int(random.next() % UInt64(bytes.count))] ^= UInt8(1 << (random.next() % 8))
            return bytes
        case 2: return frame(.hello, metadata: random.bytes(1 + Int(random.next() % 300)))
        default:
            let kind = FrameKind.allCases[Int(random.next() % UInt64(FrameKind.allCases.count))]
            return frame(kind, metadata: random.bytes(Int(random.next() % 300))) + random.bytes(64)
        }
    }

    @Test func peerThatVanishesInTheMiddleOfAFrameIsForgotten() async throws {
        try await withServer { fixture, server, port in
            let hello = helloFrame()
            for count in [0, 1, 63, 64, 65, hello.count - 1] {
                let stream = try await fixture.clientLoop.connect(
                    host: "127.0.0.1", port: port, timeoutMicroseconds: Self.wait)
                let closed = Signal()
                stream.start(onBytes: { _ in }, onClose: { _ in closed.fire() })
                stream.write(Array(hello.prefix(count)))
                stream.close()
                await closed.wait()
            }
            #expect(try await fixture.connectionCount(of: server, reaching: 0) == 0)
        }
    }

    /// Sends `bytes` on a connection of its own and returns what has come when the server closes. On the loop.
    private func answer(to bytes: [UInt8], _ loop: UVLoop, _ port: Int) async throws -> [UInt8] {
        let stream = try await loop.connect(host: "127.0.0.1", port: port, timeoutMicroseconds: Self.wait)
        let closed = Signal()
        let received = Mutex<[UInt8]>([])
        stream.start(
            onBytes: { bytes in received.withLock { $0.append(contentsOf: bytes) } },
            onClose: { _ in closed.fire() })
        stream.write(bytes)
        await closed.wait()
        return received.withLock { $0 }
    }
}

/// A frame with correct checksums, whatever it says.
private func frame(_ kind: FrameKind, version: UInt8 = FrameHeader.version, metadata: [UInt8]) -> [UInt8] {
    var header = FrameHeader(kind: kind)
    header.version = version
    header.metadataLength = UInt32(metadata.count)
    header.flags = .payloadChecksum
    header.payloadChecksum = metadata.withUnsafeBytes { checksum32($0) }
    var bytes: [UInt8] = []
    header.encode(into: &bytes)
    return bytes + metadata
}

private func helloFrame(version: UInt8 = FrameHeader.version) -> [UInt8] {
    var hello = Hello()
    hello.role = "attention"
    hello.fingerprint = "f00d"
    hello.nonce = [UInt8](repeating: 3, count: 32)
    return frame(.hello, version: version, metadata: hello.encoded())
}
