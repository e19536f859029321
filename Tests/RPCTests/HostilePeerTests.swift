import EventLoop
import EventLoopTesting
import RPC
import Testing
import WireProtocol

/// Peers that break rules, ask for too much or take nothing, in virtual time. Each test is named after what went wrong.
@Suite(.timeLimit(.minutes(1)))
struct HostilePeerTests {
    private struct House: Sendable {
        let network: MemoryNetwork
        let loop: MemoryLoop
        let handler: TestHandler
        let server: RPCServer
        let port: Int

        func client(_ limits: RPCLimits = RPCLimits()) -> RPCClient {
            let client = RPCClient(
                loop: loop, host: "server", port: port, identity: PeerIdentity(role: "attention", fingerprint: "f00d"),
                role: "sampler", fingerprint: "f00d", secret: RPCFixture.secret, limits: limits)
            client.start()
            return client
        }

        func pause(_ seconds: Double) async {
            await withCheckedContinuation { continuation in
                loop.schedule(afterMicroseconds: UInt64(seconds * 1e6)) { continuation.resume() }
            }
        }
    }

    /// Runs `body` against a server on a memory network; afterwards nothing may be left of any connection or call.
    private func run(
        seed: UInt64 = 7, _ limits: RPCLimits = RPCLimits(), _ body: @escaping @Sendable (House) async throws -> Void
    ) throws {
        let network = MemoryNetwork(seed: seed)
        let loop = network.makeLoop()
        let handler = TestHandler()
        let done: Bool? = try network.run(on: loop) {
            let server = RPCServer(
                loop: loop, identity: PeerIdentity(role: "sampler", fingerprint: "f00d"), secret: RPCFixture.secret,
                roles: ["attention"], limits: limits, handler: handler)
            let port = try server.listen(host: "server", port: 0)
            let house = House(network: network, loop: loop, handler: handler, server: server, port: port)
            try await body(house)
            network.thaw()
            network.cut()
            handler.release.fire()
            await house.pause(0.1)
            #expect(server.connectionCount == 0 && server.callCount == 0 && server.taskCount == 0)
            server.close()
            return true
        }
        #expect(done == true, "came to rest before the end")
        #expect(network.openStreamCount == 0)
    }

    private static func small(segment: Int = 4096, body: Int = 1 << 30) -> RPCLimits {
        var limits = RPCLimits()
        limits.frames.segment = segment
        limits.frames.body = body
        return limits
    }

    /// All of the calls are made at once; returns how they ended.
    private func callsAtOnce(_ count: Int, bodyBytes: Int, _ client: RPCClient, _ loop: MemoryLoop) async -> [RPCError?]
    {
        await withTaskGroup(of: RPCError?.self) { group in
            for _ in 0..<count {
                group.addTask(executorPreference: loop) {
                    await failure {
                        let answer = try await client.call(
                            .echo, RPCPayload(body: zeros(bodyBytes)), timeoutMicroseconds: RPCFixture.wait)
                        #expect(answer.body?.count == bodyBytes)
                    }
                }
            }
            return await group.reduce(into: []) { $0.append($1) }
        }
    }

    @Test func sixtyFiveLargeCallsAtOnceAreAllAnswered() throws {
        try run(Self.small()) { house in
            let client = house.client(Self.small())
            let ends = await callsAtOnce(100, bodyBytes: 10_000, client, house.loop)
            #expect(ends.allSatisfy { $0 == nil }, "\(ends.compactMap(\.self))")
            client.close()
        }
    }

    @Test func messagesInSegmentsStayTogetherWithinThePeersMaximum() throws {
        try run(Self.small(body: 32_768)) { house in
            let client = house.client(Self.small())
            let ends = await callsAtOnce(12, bodyBytes: 20_000, client, house.loop)
            #expect(ends.allSatisfy { $0 == nil }, "\(ends.compactMap(\.self))")
            client.close()
        }
    }

    @Test func halfSentMessagesAreBoundedTogether() throws {
        try run { house in
            let peer = try await RawPeer.client(house.loop, port: house.port)
            for call in 1...2 as ClosedRange<UInt64> {
                peer.send(.request, call: call, method: .echo, body: [1], of: 600 << 20)
            }
            let error = await peer.failure()
            #expect(error?.message.contains("limit is 1073741824") == true, "\(error?.message ?? "accepted")")
            #expect(await peer.next() == nil)
        }
    }

    @Test func aBodyOverThePeersMaximumFailsOnlyItsCall() throws {
        try run(Self.small(body: 32_768)) { house in
            let client = house.client(Self.small())
            let ends = await callsAtOnce(1, bodyBytes: 40_000, client, house.loop)
            #expect(ends[0]?.code == .limitExceeded)
            #expect(ends[0]?.message.contains("takes 32768") == true)
            let metadata = [UInt8](repeating: 0, count: (1 << 20) + 1)
            let error = await failure {
                _ = try await client.call(
                    .echo, RPCPayload(metadata: metadata), timeoutMicroseconds: RPCFixture.wait)
            }
            #expect(error?.code == .limitExceeded)
            #expect(error?.message.contains("1048576") == true)
            let after = await callsAtOnce(1, bodyBytes: 30_000, client, house.loop)
            #expect(after == [nil])
            client.close()
        }
    }

    @Test func anAnswerOverTheCallersMaximumFailsOnlyItsCall() throws {
        try run(Self.small()) { house in
            let client = house.client(Self.small(body: 8192))
            let error = await failure {
                _ = try await client.call(.large, RPCPayload(), timeoutMicroseconds: RPCFixture.wait)
            }
            #expect(error?.code == .limitExceeded)
            let after = await callsAtOnce(1, bodyBytes: 8192, client, house.loop)
            #expect(after == [nil])
            client.close()
        }
    }

    @Test func aCallerThatNeverReadsIsCutOff() throws {
        var patient = RPCLimits()
        patient.silenceMicroseconds = 1 << 50
        try run { [patient] house in
            let client = house.client(patient)
            try await client.waitReady(timeoutMicroseconds: RPCFixture.wait)
            house.network.freezeClients(of: house.port)
            let task = Task.immediate(executorPreference: house.loop) {
                await callsAtOnce(1, bodyBytes: 4 << 20, client, house.loop)
            }
            await house.pause(5)
            #expect(house.server.connectionCount == 1)
            await house.pause(10)
            #expect(house.server.connectionCount == 0)
            house.network.thaw()
            #expect(await task.value.first??.code == .unavailable)
            client.close()
        }
    }

    @Test func aCallerThatGrantsNothingLosesItsCallAfterAMinute() throws {
        var limits = RPCLimits()
        limits.streamCredit = 4096
        try run { [limits] house in
            let client = house.client(limits)
            let stream = try await client.stream(.items, RPCPayload(), timeoutMicroseconds: 1 << 50)
            await house.pause(30)
            #expect(house.server.taskCount == 1 && house.server.streamCount == 1)
            await house.pause(35)
            #expect(house.server.taskCount == 0 && house.server.callCount == 0)
            let error = await failure { while try await stream.next() != nil {} }
            #expect(error?.code == .deadlineExceeded)
            client.close()
        }
    }

    @Test func theServerKeepsDeadlinesToo() throws {
        try run { house in
            let peer = try await RawPeer.client(house.loop, port: house.port)
            peer.send(.request, call: 1, method: .untilCancelled, deadline: 1_000_000)
            let error = await peer.failure()
            #expect(error?.code == .deadlineExceeded)
            await house.handler.cancelled.wait()
            peer.stream.close()
        }
    }

    @Test func strangersGetNoMemoryBeforeTheHandshake() throws {
        try run { house in
            for (metadata, body) in [(8193, 0), (0, 1)] {
                let peer = RawPeer(
                    try await house.loop.connect(host: "server", port: house.port, timeoutMicroseconds: 5_000_000))
                peer.send(
                    .hello, metadata: [UInt8](repeating: 0, count: metadata), body: [UInt8](repeating: 0, count: body))
                let error = await peer.failure()
                #expect(error?.message.contains("limit of") == true, "\(error?.message ?? "accepted")")
            }
        }
    }

    @Test func itemsBeyondTheCreditEndTheConnection() throws {
        try run { house in
            let client = house.client()
            let listener = try house.loop.listen(host: "rogue", port: 999) { stream in
                Task(executorPreference: house.loop) {
                    let peer = RawPeer(stream)
                    try await peer.serve()
                    guard let request = await peer.next() else { return }
                    for _ in 0..<40 {
                        peer.send(.item, call: request.header.requestID, metadata: [UInt8](repeating: 1, count: 10_000))
                    }
                    #expect(await peer.failure()?.code == .limitExceeded)
                }
            }
            let victim = RPCClient(
                loop: house.loop, host: "rogue", port: 999,
                identity: PeerIdentity(role: "attention", fingerprint: "f00d"), role: "sampler", fingerprint: "f00d",
                secret: RPCFixture.secret)
            victim.start()
            let stream = try await victim.stream(.items, RPCPayload(), timeoutMicroseconds: 60_000_000)
            await house.pause(1)
            let error = await failure { while try await stream.next() != nil {} }
            #expect(error?.code == .unavailable, "what ended the connection says nothing about the call")
            #expect(error?.message.contains("more items than were granted") == true, "\(error?.message ?? "")")
            victim.close()
            client.close()
            listener.close()
        }
    }

    @Test func itemsOfNoBytesAreBounded() throws {
        var limits = RPCLimits()
        limits.streamCredit = 4096
        try run { [limits] house in
            let listener = try house.loop.listen(host: "rogue", port: 999) { stream in
                Task(executorPreference: house.loop) {
                    let peer = RawPeer(stream)
                    try await peer.serve()
                    guard let request = await peer.next() else { return }
                    for _ in 0..<600 { peer.send(.item, call: request.header.requestID) }
                    let error = await peer.failure()
                    #expect(error?.code == .limitExceeded)
                    #expect(error?.message.contains("more than 513 items") == true, "\(error?.message ?? "accepted")")
                }
            }
            let victim = RPCClient(
                loop: house.loop, host: "rogue", port: 999,
                identity: PeerIdentity(role: "attention", fingerprint: "f00d"), role: "sampler", fingerprint: "f00d",
                secret: RPCFixture.secret, limits: limits)
            victim.start()
            let stream = try await victim.stream(.items, RPCPayload(), timeoutMicroseconds: 60_000_000)
            await house.pause(1)
            var taken = 0
            let error = await failure { while try await stream.next() != nil { taken += 1 } }
            #expect(error?.code == .unavailable && taken == 513)
            #expect(error?.message.contains("more than 513 items") == true, "\(error?.message ?? "")")
            victim.close()
            listener.close()
        }
    }

    @Test func fewCallsWaitForAConnectionAndNotForLong() throws {
        var limits = RPCLimits()
        limits.waitingCalls = 3
        try run { [limits] house in
            let client = RPCClient(
                loop: house.loop, host: "nobody", port: 1, identity: PeerIdentity(role: "attention"), role: "sampler",
                fingerprint: "", secret: [], limits: limits)
            client.start()
            let start = house.loop.now
            let ends = await callsAtOnce(5, bodyBytes: 1, client, house.loop)
            #expect(ends.count { $0?.code == .unavailable } == 3, "\(ends)")
            #expect(ends.count { $0?.code == .notAccepted } == 2)
            #expect(house.loop.now - start < 11_000_000)
            client.close()
        }
    }

    @Test func aSecondDrainEndsWithTheFirst() throws {
        try run { house in
            let client = house.client()
            let call = Task.immediate(executorPreference: house.loop) {
                _ = try await client.call(.untilReleased, RPCPayload(), timeoutMicroseconds: RPCFixture.wait)
            }
            await house.handler.entered.wait()
            let drains = (0..<2).map { _ in
                Task.immediate(executorPreference: house.loop) {
                    await house.server.drain(withinMicroseconds: RPCFixture.wait)
                }
            }
            house.handler.release.fire()
            for drain in drains { await drain.value }
            try await call.value
            client.close()
        }
    }

    /// A handler that has not noticed its cancellation still counts, so that cancelling does not make room.
    @Test func cancelledCallsDoNotPileUp() throws {
        var limits = RPCLimits()
        limits.serverCalls = 8
        try run(limits) { house in
            let peer = try await RawPeer.client(house.loop, port: house.port)
            for call in 1...20 as ClosedRange<UInt64> {
                peer.send(.request, call: call, method: .untilReleased)
                peer.send(.cancel, call: call)
            }
            #expect(await peer.failure()?.code == .notAccepted)
            #expect(house.server.taskCount == 8)
            house.handler.release.fire()
            peer.stream.close()
        }
    }
}

private func zeros(_ count: Int) -> AlignedBuffer {
    let buffer = AlignedBuffer(count: count)
    buffer.pointer.initializeMemory(as: UInt8.self, repeating: 0, count: count)
    return buffer
}
