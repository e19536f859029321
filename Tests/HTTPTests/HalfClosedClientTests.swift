import EventLoop
import HTTP
import Testing

/// Clients that end their side of the connection after the request, and read on; and those that are gone.
@Suite(.timeLimit(.minutes(1)))
struct HalfClosedClientTests {
    @Test(arguments: ["1.0", "1.1"]) func aClientThatHalfClosesGetsItsWholeAnswer(version: String) throws {
        try withMemoryServer { loop, port, server in
            let client = try await MemoryClient(loop, port)
            client.get("/after/4", version: version)
            client.stream.endWriting()
            await loop.pass(seconds: 3)
            #expect(client.received.isEmpty && server.handlerCount == 1)
            await loop.pass(seconds: 2)
            #expect(client.text.hasPrefix("HTTP/1.1 200 ") && client.text.hasSuffix("done") && client.isClosed)
        }
    }

    @Test func aClientThatHalfClosesGetsItsWholeStream() throws {
        try withMemoryServer { loop, port, _ in
            let client = try await MemoryClient(loop, port)
            client.get("/events/40")
            client.stream.endWriting()
            await loop.pass(seconds: 39)
            #expect(client.text.hasPrefix("HTTP/1.1 200 ") && !client.text.contains("data") && !client.isClosed)
            await loop.pass(seconds: 2)
            #expect(client.text.hasSuffix("data: x\n\n\r\n0\r\n\r\n") && client.isClosed)
        }
    }

    @Test func allRequestsSentBeforeTheEndAreAnswered() throws {
        try withMemoryServer { loop, port, _ in
            let client = try await MemoryClient(loop, port)
            for path in ["/", "/after/1", "/after/2", "/"] { client.get(path) }
            client.stream.endWriting()
            await loop.pass(seconds: 4)
            #expect(client.text.components(separatedBy: "HTTP/1.1 200 ").count == 5 && client.isClosed)
        }
    }

    @Test(arguments: ["GET / HT", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc"])
    func aRequestThatEndsTooEarlyIsRefused(request: String) throws {
        try withMemoryServer { loop, port, _ in
            let client = try await MemoryClient(loop, port)
            client.stream.write(Array(request.utf8))
            client.stream.endWriting()
            await loop.pass(seconds: 0.1)
            #expect(client.text.hasPrefix("HTTP/1.1 400 ") && client.text.contains("complete") && client.isClosed)
        }
    }

    /// Seconds after which a client that is gone must have been noticed: one that waits for its answer, and one whose stream
    /// has begun.
    @Test(arguments: [("/after/600", 8.0), ("/events/600", 2.0)])
    func aClientThatIsGoneIsNoticed(path: String, seconds: Double) throws {
        try withMemoryServer { loop, port, server in
            let client = try await MemoryClient(loop, port)
            client.get(path)
            await loop.pass(seconds: 1)
            #expect(server.handlerCount == 1)
            client.stream.close()
            await loop.pass(seconds: seconds)
            #expect(server.handlerCount == 0 && server.connectionCount == 0)
        }
    }

    /// What can be written to find out is invisible to a client of HTTP/1.1 that has its answer still to come.
    @Test func aPatientClientSeesInterimResponsesAtMost() throws {
        try withMemoryServer { loop, port, _ in
            let client = try await MemoryClient(loop, port)
            client.get("/after/100")
            client.stream.endWriting()
            await loop.pass(seconds: 101)
            let parts = client.text.components(separatedBy: "HTTP/1.1 100 Continue\r\n\r\n")
            #expect(parts.count == 5 && parts.dropLast().allSatisfy(\.isEmpty))
            #expect(parts.last?.hasPrefix("HTTP/1.1 200 ") == true && client.text.hasSuffix("done"))
        }
    }

    @Test(arguments: ["1.0", "1.1"]) func aConnectionThatIsNotKeptEndsWithItsResponse(version: String) throws {
        try withMemoryServer { loop, port, _ in
            let client = try await MemoryClient(loop, port)
            client.get("/", "Connection: close\r\n", version: version)
            let asked = loop.now
            await loop.pass(seconds: 1)
            let closed = try #require(client.closedAt)
            #expect(client.text.hasSuffix("[]") && closed - asked < 5_000)
        }
    }

    @Test func probesOfOneThatWaitsAreLate() {
        var waiting = DepartureProbes(hasBegun: false)
        var begun = DepartureProbes(hasBegun: true)
        #expect(waiting.next() == 5_000_000 && waiting.next() == 1_000_000)
        #expect(begun.next() == 0 && begun.next() == 500_000)
    }
}
