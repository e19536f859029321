import EventLoop
import HTTP
import Testing

/// Answers each request with the next of its scripts: bytes to send, and whether to close after. Confined to the loop.
private final class Server: @unchecked Sendable {
    struct Answer: Sendable {
        var text: String
        var closes = false
    }

    private(set) var port = 0
    private(set) var connections = 0
    private(set) var requests: [String] = []
    private(set) var closed = 0
    private let waiters = Waiters()
    private var answers: [Answer]
    private var listener: (any Listener)?
    private var streams: [any ByteStream] = []

    init(_ loop: UVLoop, _ answers: [Answer]) throws {
        self.answers = answers
        let listener = try loop.listen(host: "127.0.0.1", port: 0) { [weak self] in self?.accept($0) }
        self.listener = listener
        port = listener.port
    }

    private func accept(_ stream: any ByteStream) {
        connections += 1
        streams.append(stream)
        stream.start(
            onBytes: { [self] bytes in
                requests.append(String(decoding: bytes, as: UTF8.self))
                guard !answers.isEmpty else { return }
                let answer = answers.removeFirst()
                stream.write(Array(answer.text.utf8))
                if answer.closes { stream.close() }
            },
            onClose: { [self] _ in
                closed += 1
                waiters.wake()
            })
    }

    /// Returns when so many connections have ended.
    func wait(closed count: Int) async { await waiters.wait { closed < count } }

    func close() {
        listener?.close()
        for stream in streams { stream.close() }
    }
}

@Suite(.timeLimit(.minutes(1)))
struct HTTPClientTests {
    private func serve(
        _ answers: [Server.Answer], _ body: @escaping @Sendable (HTTPClient, Server, UVLoop) async throws -> Void
    ) async throws {
        let loop = UVLoop()
        loop.start()
        try await Task(executorPreference: loop) {
            let server = try Server(loop, answers)
            let client = HTTPClient(loop: loop, host: "127.0.0.1", port: server.port)
            try await body(client, server, loop)
            client.close()
            server.close()
        }.value
        loop.stop()
    }

    private static let get = HTTPRequest(method: "GET", path: "/a", query: "b=1", headers: [("X", "y\r\nZ: 1")])

    private static func fails(
        _ client: HTTPClient, timeoutMicroseconds: UInt64 = 5_000_000, _ wanted: (HTTPClientError) -> Bool
    ) async -> Bool {
        do throws(HTTPClientError) {
            _ = try await client.send(get, timeoutMicroseconds: timeoutMicroseconds).body()
            return false
        } catch { return wanted(error) }
    }

    @Test func answersAreReadHoweverTheyAreFramed() async throws {
        try await serve([
            .init(text: "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nA: b\r\n\r\nabc"),
            .init(
                text:
                    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 429 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n0\r\n\r\n"
            ),
            .init(text: "HTTP/1.1 200 OK\r\n\r\nuntil the end", closes: true),
            .init(text: "HTTP/1.1 204 No Content\r\n\r\n"),
        ]) { client, server, _ in
            var answers: [String] = []
            for _ in 0..<4 {
                let response = try await client.send(Self.get, timeoutMicroseconds: 5_000_000)
                answers.append("\(response.status) \(String(decoding: try await response.body(), as: UTF8.self))")
            }
            #expect(answers == ["200 abc", "429 de", "200 until the end", "204 "])
            #expect(server.connections == 2, "connections are kept for the next request")
            #expect(server.requests[0].hasPrefix("GET /a?b=1 HTTP/1.1\r\nHost: 127.0.0.1:\(server.port)\r\n"))
            #expect(server.requests[0].contains("\r\nX: yZ: 1\r\n"), "a value cannot add a header")
        }
    }

    @Test func everyWayToFailHasItsError() async throws {
        try await serve([
            .init(text: "NONSENSE\r\n\r\n"),
            .init(text: "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", closes: true),
            .init(text: "", closes: true), .init(text: "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"),
            .init(text: "HTTP/1.1 200 OK\r\nX: \(String(repeating: "y", count: 70_000))\r\n\r\n"),
            .init(text: "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab"),
        ]) { client, _, loop in
            func isMalformed(_ error: HTTPClientError) -> Bool { if case .malformed = error { true } else { false } }
            func isLost(_ error: HTTPClientError) -> Bool { if case .disconnected = error { true } else { false } }
            #expect(await Self.fails(client, isMalformed))
            #expect(await Self.fails(client, isLost))
            #expect(await Self.fails(client, isLost))
            #expect(await Self.fails(client, timeoutMicroseconds: 50_000) { $0 == .timedOut })
            #expect(await Self.fails(client, isMalformed))
            let surplus = try await client.send(Self.get, timeoutMicroseconds: 5_000_000)
            #expect(try await surplus.body() == Array("a".utf8), "what follows an answer is no part of it")
            let nobody = HTTPClient(loop: loop, host: "127.0.0.1", port: 1)
            #expect(await Self.fails(nobody) { if case .cannotConnect = $0 { true } else { false } })
        }
    }

    @Test func givingAnAnswerUpClosesItsConnection() async throws {
        let begun = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"
        try await serve([.init(text: begun), .init(text: begun), .init(text: begun)]) { client, server, loop in
            let response = try await client.send(Self.get, timeoutMicroseconds: 5_000_000)
            #expect(try await response.next() == Array("abc".utf8))
            response.cancel()
            let dropped = try await client.send(Self.get, timeoutMicroseconds: 5_000_000)
            let task = Task(executorPreference: loop) {
                _ = try await dropped.next()
                _ = try await dropped.next()
            }
            task.cancel()
            await #expect(throws: HTTPClientError.cancelled) { try await task.value }
            _ = try await client.send(Self.get, timeoutMicroseconds: 5_000_000)
            await server.wait(closed: 3)
            #expect(server.connections == 3)
        }
    }

    @Test func everySplitOfAnEventStreamGivesTheSameEvents() {
        let text =
            "data: one\n\n: comment\r\nevent: x\r\ndata: two\r\ndata:three\r\n\r\nid\rdata\r\rdatum: no\n\n\ndata: end\n\n"
        let bytes = Array(text.utf8)
        let wanted = ["one", "two\nthree", "", "end"].map { Array($0.utf8) }
        for cut in 0...bytes.count {
            var parser = EventStreamParser()
            let first = parser.append(Array(bytes[..<cut]))
            let second = parser.append(Array(bytes[cut...]))
            #expect((first ?? []) + (second ?? []) == wanted, "cut \(cut)")
        }
        var parser = EventStreamParser()
        #expect(parser.append([UInt8](repeating: 65, count: EventStreamParser.eventBytes + 1)) == nil)
    }
}
