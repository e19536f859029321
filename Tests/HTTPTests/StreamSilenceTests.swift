import EventLoop
import HTTP
import Testing

/// What a connection does while nothing is said on it.
@Suite(.timeLimit(.minutes(1)))
struct StreamSilenceTests {
    private func comments(_ client: MemoryClient) -> Int { client.text.components(separatedBy: ": ping\n\n").count - 1 }

    @Test func theClockCountsFromTheLastSound() {
        var clock = SilenceClock(limit: 10, now: 100)
        #expect(clock.left(at: 100) == 10 && clock.left(at: 104) == 6 && clock.left(at: 110) == 0)
        clock.heard(at: 109)
        #expect(clock.left(at: 110) == 9 && clock.left(at: 119) == 0 && clock.left(at: 500) == 0)
        #expect(clock.left(at: 90) == 10, "a clock that runs backwards")
    }

    @Test func aSilentStreamGetsACommentEveryFifteenSeconds() throws {
        try withMemoryServer { loop, port, _ in
            let client = try await MemoryClient(loop, port)
            client.get("/events/50")
            await loop.pass(seconds: 0.1)
            #expect(client.text.hasPrefix("HTTP/1.1 200 OK\r\n") && comments(client) == 0)
            for seen in 1...3 {
                await loop.pass(seconds: 15)
                #expect(comments(client) == seen)
            }
            await loop.pass(seconds: 100)
            #expect(comments(client) == 3 && client.text.hasSuffix("8\r\n: ping\n\n\r\n9\r\ndata: x\n\n\r\n0\r\n\r\n"))
        }
    }

    @Test func aStreamWithTokensGetsNone() throws {
        try withMemoryServer { loop, port, _ in
            let client = try await MemoryClient(loop, port)
            client.get("/ticks/1")
            await loop.pass(seconds: 70)
            #expect(client.text.hasSuffix("0\r\n\r\n") && comments(client) == 0)
        }
    }

    @Test func noneIsSentWhenNoneIsWanted() throws {
        try withMemoryServer(pingMicroseconds: 0) { loop, port, _ in
            let client = try await MemoryClient(loop, port)
            client.get("/events/600")
            await loop.pass(seconds: 590)
            #expect(comments(client) == 0)
            client.stream.close()
            await loop.pass(seconds: 2)
        }
    }

    /// What cannot be delivered must not pile up.
    @Test func aClientThatDoesNotReadIsSentNoMore() throws {
        try withMemoryServer(pingMicroseconds: 1_000) { loop, port, server in
            let client = try await MemoryClient(loop, port)
            client.stream.pauseReading()
            client.get("/events/600")
            await loop.pass(seconds: 60)
            #expect(server.connectionCount == 0, "a client that takes nothing is given up")
            client.stream.abort()
        }
    }

    @Test func aConnectionIsKeptForTwoMinutesAndSaysSo() throws {
        try withMemoryServer { loop, port, server in
            let client = try await MemoryClient(loop, port)
            client.get("/")
            await loop.pass(seconds: 119)
            #expect(client.text.contains("\r\nKeep-Alive: timeout=120\r\n") && !client.isClosed)
            client.get("/")
            await loop.pass(seconds: 119)
            #expect(!client.isClosed && server.connectionCount == 1)
            await loop.pass(seconds: 2)
            #expect(client.isClosed)
        }
    }

    @Test(arguments: ["Sk-1   ", "   Sk-1", "\t Sk-1\t", "Sk-1", "  Sk-1 \t "])
    func whiteSpaceAroundAHeadersValueIsNoPartOfIt(value: String) throws {
        try withMemoryServer { loop, port, _ in
            let client = try await MemoryClient(loop, port)
            client.get("/", "X-Given:\(value)\r\n")
            await loop.pass(seconds: 0.1)
            #expect(client.text.hasSuffix("\r\n\r\n[Sk-1]"), "\(client.text)")
            client.stream.close()
        }
    }
}
