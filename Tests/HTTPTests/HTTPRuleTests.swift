import EventLoop
import EventLoopTesting
import Foundation
import HTTP
import Testing

/// Rules of HTTP and of this server that were not kept, in virtual time. Each test is named after what went wrong.
@Suite(.timeLimit(.minutes(1)))
struct HTTPRuleTests {
    /// Answers at once; `/half` sends half a mebibyte and then hangs until cancelled.
    private final class Handler: HTTPHandler {
        func handle(_ request: HTTPRequest, _ response: HTTPResponse) async {
            guard request.path == "/half" else {
                return response.send(status: 200, contentType: "text/plain", body: [111, 107])
            }
            response.beginStream(status: 200, contentType: "text/plain")
            try? await response.write([UInt8](repeating: 65, count: 512 << 10))
            let stream = AsyncStream<Void> { _ in }
            for await _ in stream {}
        }
    }

    /// A connection and what came over it. Confined to the loop.
    private final class Client: @unchecked Sendable {
        let stream: any ByteStream
        var received: [UInt8] = []
        var isClosed = false

        init(_ loop: MemoryLoop, _ port: Int) async throws {
            stream = try await loop.connect(host: "server", port: port, timeoutMicroseconds: 5_000_000)
            stream.start(
                onBytes: { [self] in received.append(contentsOf: $0) }, onClose: { [self] _ in isClosed = true })
        }

        var text: String { String(decoding: received, as: UTF8.self) }
    }

    private func serve(
        _ body: @escaping @Sendable (MemoryLoop, Int, HTTPServer) async throws -> Void
    ) throws {
        let network = MemoryNetwork(seed: 5)
        let loop = network.makeLoop()
        let done: Bool? = try network.run(on: loop) {
            let server = HTTPServer(loop: loop, limits: HTTPLimits(), handler: Handler())
            let port = try server.listen(host: "server", port: 0)
            try await body(loop, port, server)
            server.close()
            return true
        }
        #expect(done == true, "came to rest before the end")
        network.runUntilIdle()
        #expect(network.openStreamCount == 0)
    }

    private func pause(_ loop: MemoryLoop, seconds: Double) async {
        await withCheckedContinuation { done in
            loop.schedule(afterMicroseconds: UInt64(seconds * 1e6)) { done.resume() }
        }
    }

    @Test(arguments: [
        ("GET / HTTP/1.1\r\n\r\n", "400"), ("GET http://x/ HTTP/1.1\r\nX-Host: x\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: x\r\nhOST: x\r\n\r\n", "400"),
        ("GET / HTTP/1.0\r\nHost: x\r\nHost: x\r\n\r\n", "400"), ("GET / HTTP/1.0\r\n\r\n", "200"),
        ("GET / HTTP/1.1\r\nhost:\r\n\r\n", "200"), ("GET / HTTP/1.0\r\nHost: x\r\n\r\n", "200"),
    ])
    func aRequestWithoutOneHostIsRefused(request: String, status: String) throws {
        try serve { loop, port, _ in
            let client = try await Client(loop, port)
            client.stream.write(Array(request.utf8))
            await pause(loop, seconds: 2)
            #expect(client.text.hasPrefix("HTTP/1.1 \(status) "), "\(client.text)")
            #expect(client.text.contains("one Host header") == (status == "400"))
            client.stream.abort()
        }
    }

    @Test func responsesSayWhenTheyAreSent() throws {
        var date = HTTPDate()
        #expect(date.line(at: 784_111_777) == "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n")
        #expect(date.line(at: 784_111_777) == "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n")
        #expect(date.line(at: 951_782_400) == "Date: Tue, 29 Feb 2000 00:00:00 GMT\r\n")
        try serve { loop, port, _ in
            for request in ["GET / HTTP/1.1\r\nHost: x\r\n\r\n", "GET /half HTTP/1.1\r\nHost: x\r\n\r\n", "?\r\n"] {
                let client = try await Client(loop, port)
                client.stream.write(Array(request.utf8))
                await pause(loop, seconds: 1)
                let head = client.text.prefix(400).components(separatedBy: "\r\n\r\n").first ?? ""
                let dates = head.components(separatedBy: "\r\n").filter {
                    $0.hasPrefix("Date: ") && $0.hasSuffix(" GMT")
                }
                #expect(dates.count == 1, "\(head)")
                client.stream.abort()
            }
        }
    }

    /// Half a mebibyte is less than what makes a writer wait, and a handler that writes no more never waits.
    @Test func aClientThatTakesNothingIsCutOffHoweverLittleWaitsForIt() throws {
        try serve { loop, port, server in
            let client = try await Client(loop, port)
            client.stream.pauseReading()
            client.stream.write(Array("GET /half HTTP/1.1\r\nHost: x\r\n\r\n".utf8))
            await pause(loop, seconds: 8)
            #expect(server.connectionCount == 1)
            await pause(loop, seconds: 15)
            #expect(server.connectionCount == 0 && server.handlerCount == 0)
            client.stream.abort()
        }
    }

    @Test func aClientThatTakesAllOfItLateIsKept() throws {
        try serve { loop, port, server in
            let client = try await Client(loop, port)
            client.stream.pauseReading()
            client.stream.write(Array("GET /half HTTP/1.1\r\nHost: x\r\n\r\n".utf8))
            await pause(loop, seconds: 8)
            client.stream.resumeReading()
            await pause(loop, seconds: 60)
            #expect(server.connectionCount == 1 && !client.isClosed && client.received.count > 512 << 10)
            client.stream.abort()
        }
    }
}
