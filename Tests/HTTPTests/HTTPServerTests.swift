import EventLoop
import HTTP
import Testing

/// Collects what a connection receives; confined to the loop.
private final class Client: @unchecked Sendable {
    let stream: any ByteStream
    var received: [UInt8] = []
    var isClosed = false
    private var waiter: CheckedContinuation<Void, Never>?

    init(_ stream: any ByteStream) {
        self.stream = stream
        stream.start(
            onBytes: { [self] in
                received.append(contentsOf: $0)
                wake()
            },
            onClose: { [self] _ in
                isClosed = true
                wake()
            })
    }

    var text: String { String(decoding: received, as: UTF8.self) }

    func send(_ text: String) { stream.write(Array(text.utf8)) }

    func wait(until done: (Client) -> Bool) async {
        while !done(self), !isClosed { await withCheckedContinuation { waiter = $0 } }
    }

    func waitFor(_ end: String) async -> String {
        await wait { $0.text.hasSuffix(end) }
        return text
    }

    private func wake() {
        waiter?.resume()
        waiter = nil
    }
}

/// Echoes bodies; other paths stream, hang until cancelled, or do not answer. Confined to the loop.
private final class Echo: HTTPHandler, @unchecked Sendable {
    var wasCancelled = false
    private var hanging: CheckedContinuation<Void, Never>?
    private var watcher: CheckedContinuation<Void, Never>?
    var isHanging = false

    func handle(_ request: HTTPRequest, _ response: HTTPResponse) async {
        switch request.path {
        case "/stream":
            response.beginStream(status: 200, contentType: "text/plain")
            for part in ["one", "two"] { try? await response.write(Array(part.utf8)) }
            response.end()
        case "/flood":
            response.beginStream(status: 200, contentType: "text/plain")
            let block = [UInt8](repeating: 65, count: 1 << 16)
            do throws(HTTPError) { while true { try await response.write(block) } } catch {
                finished(error == .slowClient)
            }
        case "/hang":
            isHanging = true
            let stream = AsyncStream<Void> { _ in }
            response.beginStream(status: 200, contentType: "text/plain")
            try? await response.write(Array("begun".utf8))
            for await _ in stream {}
            finished(Task.isCancelled)
        case "/nothing": break
        default:
            response.send(status: 200, contentType: "text/plain", body: request.body + Array("|\(request.query)".utf8))
        }
    }

    private func finished(_ value: Bool) {
        wasCancelled = value
        isHanging = false
        watcher?.resume()
        watcher = nil
    }

    func waitFinished() async {
        if isHanging || !wasCancelled { await withCheckedContinuation { watcher = $0 } }
    }
}

@Suite(.timeLimit(.minutes(1)))
struct HTTPServerTests {
    private func serve(
        _ limits: HTTPLimits = HTTPLimits(),
        _ body: @escaping @Sendable (UVLoop, Int, Echo, HTTPServer) async throws -> Void
    ) async throws {
        let loop = UVLoop()
        loop.start()
        try await Task(executorPreference: loop) {
            let echo = Echo()
            let server = HTTPServer(loop: loop, limits: limits, handler: echo)
            let port = try server.listen(host: "127.0.0.1", port: 0)
            try await body(loop, port, echo, server)
            server.close()
        }.value
        loop.stop()
    }

    @Test func everySplitOfARequestIsTheSameRequest() async throws {
        let text =
            "POST /e?a=1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        try await serve { loop, port, _, _ in
            let client = try await open(loop, port)
            for cut in 1..<text.utf8.count {
                client.received = []
                client.send(String(text.prefix(cut)))
                await turn(loop)
                client.send(String(text.dropFirst(cut)))
                let answer = await client.waitFor("abcde|a=1")
                #expect(answer.hasPrefix("HTTP/1.1 200 OK\r\n"), "cut \(cut)")
            }
            client.stream.close()
        }
    }

    @Test(arguments: [
        ("NONSENSE\r\n\r\n", "400"), ("GET / HTTP/9.9\r\n\r\n", "400"),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n", "413"),
        ("GET / HTTP/1.1\r\nHost: x\r\nX: \(String(repeating: "y", count: 600))\r\n\r\n", "431"),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab", "408"), ("GET / HTTP/1.1\r\nHo", "408"),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", "400"),
    ])
    func refusalsAnswerAndClose(request: String, status: String) async throws {
        var limits = HTTPLimits()
        (limits.headerBytes, limits.bodyBytes) = (512, 64)
        (limits.headerMicroseconds, limits.bodyMicroseconds) = (50_000, 50_000)
        try await serve(limits) { loop, port, _, _ in
            let client = try await open(loop, port)
            client.send(request)
            await client.wait { $0.isClosed }
            #expect(client.text.hasPrefix("HTTP/1.1 \(status) "))
            #expect(client.text.hasSuffix("\"param\":null,\"code\":null}}"))
        }
    }

    @Test func streamsPipelinesHeadAndClose() async throws {
        try await serve { loop, port, _, _ in
            let client = try await open(loop, port)
            for start in ["GET /stream", "GET /nothing", "HEAD /e"] {
                client.send("\(start) HTTP/1.1\r\nHost: x\r\n\r\n")
            }
            await client.wait { $0.text.contains("Content-Length: 1\r\n") && $0.text.hasSuffix("\r\n\r\n") }
            #expect(client.text.contains("\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\nHTTP/1.1 500 "))
            client.received = []
            client.send(
                "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\n")
            _ = await client.waitFor("100 Continue\r\n\r\n")
            client.send("hi")
            await client.wait { $0.isClosed }
            #expect(client.text.contains("Connection: close\r\n") && client.text.hasSuffix("\r\n\r\nhi|"))
        }
    }

    /// Clients that were told of a proxy name the host in the target; every server must take that.
    @Test func aTargetWithItsHostIsThePathBehindIt() async throws {
        try await serve { loop, port, _, _ in
            let client = try await open(loop, port)
            client.send("GET http://x:1/stream HTTP/1.1\r\nHost: x\r\n\r\n")
            #expect(await client.waitFor("0\r\n\r\n").contains("\r\none\r\n"))
            client.received = []
            client.send("GET HTTP://x?b=2 HTTP/1.1\r\nHost: x\r\n\r\n")
            #expect(await client.waitFor("|b=2").hasPrefix("HTTP/1.1 200 "))
            client.stream.close()
        }
    }

    @Test func disconnectCancelsTheHandler() async throws {
        try await serve { loop, port, echo, _ in
            let client = try await open(loop, port)
            client.send("GET /hang HTTP/1.1\r\nHost: x\r\n\r\n")
            _ = await client.waitFor("begun\r\n")
            client.stream.close()
            await echo.waitFinished()
            #expect(echo.wasCancelled)
        }
    }

    @Test func slowClientIsGivenUp() async throws {
        var limits = HTTPLimits()
        limits.slowClientMicroseconds = 50_000
        try await serve(limits) { loop, port, echo, _ in
            let client = try await open(loop, port)
            client.stream.pauseReading()
            client.send("GET /flood HTTP/1.1\r\nHost: x\r\n\r\n")
            await echo.waitFinished()
            #expect(echo.wasCancelled)
            client.stream.close()
        }
    }

    @Test func bodiesOfAllRequestsTogetherAreBounded() async throws {
        var limits = HTTPLimits()
        limits.totalBodyBytes = 100
        try await serve(limits) { loop, port, echo, server in
            let first = try await open(loop, port)
            first.send(
                "POST /hang HTTP/1.1\r\nHost: x\r\nContent-Length: 80\r\n\r\n" + String(repeating: "x", count: 80))
            _ = await first.waitFor("begun\r\n")
            let second = try await open(loop, port)
            second.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 30\r\n\r\n" + String(repeating: "y", count: 30))
            await second.wait { $0.isClosed }
            #expect(second.text.hasPrefix("HTTP/1.1 503 ") && second.text.contains("100 bytes"))
            first.stream.close()
            await echo.waitFinished()
            let third = try await open(loop, port)
            third.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 90\r\n\r\n" + String(repeating: "z", count: 90))
            #expect(await third.waitFor("z|").hasPrefix("HTTP/1.1 200 "))
            #expect(server.handlerCount == 0)
            third.stream.close()
        }
    }

    @Test func connectionsOverTheLimitAreRefusedAndDrainEnds() async throws {
        var limits = HTTPLimits()
        limits.connections = 1
        try await serve(limits) { loop, port, _, server in
            let first = try await open(loop, port)
            first.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            _ = await first.waitFor("|")
            let second = try await open(loop, port)
            await second.wait { $0.isClosed }
            #expect(second.text.hasPrefix("HTTP/1.1 503 "))
            #expect(server.connectionCount == 1)
            await server.drain(withinMicroseconds: 5_000_000)
            #expect(server.connectionCount == 0)
        }
    }
}

private func open(_ loop: UVLoop, _ port: Int) async throws -> Client {
    Client(try await loop.connect(host: "127.0.0.1", port: port, timeoutMicroseconds: 5_000_000))
}

/// Lets the loop deliver what was written.
private func turn(_ loop: UVLoop) async {
    await withCheckedContinuation { done in
        loop.schedule(afterMicroseconds: 1000) { done.resume() }
    }
}
