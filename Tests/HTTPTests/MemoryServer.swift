import EventLoop
import EventLoopTesting
import HTTP
import Testing

/// A connection on a network in memory and what came over it. Confined to the loop.
final class MemoryClient: @unchecked Sendable {
    let stream: any ByteStream
    private(set) var received: [UInt8] = []
    private(set) var isClosed = false
    /// When the connection was closed.
    private(set) var closedAt: UInt64?

    init(_ loop: MemoryLoop, _ port: Int) async throws {
        stream = try await loop.connect(host: "server", port: port, timeoutMicroseconds: 5_000_000)
        stream.start(
            onBytes: { [self] in received.append(contentsOf: $0) },
            onClose: { [self] _ in (isClosed, closedAt) = (true, loop.now) })
    }

    var text: String { String(decoding: received, as: UTF8.self) }

    /// Sends a request for `path`, and `headers` with their line ends.
    func get(_ path: String, _ headers: String = "", version: String = "1.1") {
        stream.write(Array("GET \(path) HTTP/\(version)\r\nHost: x\r\n\(headers)\r\n".utf8))
    }
}

/// What a server of these tests answers, after seconds of virtual time: `/after/SECONDS` with "done", `/events/SECONDS` with
/// an event stream whose only event comes then, `/ticks` with one a second for a minute, and all else at once.
final class TimedHandler: HTTPHandler {
    private let loop: MemoryLoop
    private let pingMicroseconds: UInt64

    init(_ loop: MemoryLoop, pingMicroseconds: UInt64) {
        self.loop = loop
        self.pingMicroseconds = pingMicroseconds
    }

    func handle(_ request: HTTPRequest, _ response: HTTPResponse) async {
        let parts = request.path.split(separator: "/")
        let seconds = parts.last.flatMap { Double($0) } ?? 1
        switch parts.first {
        case "after":
            await pause(seconds)
            response.send(status: 200, contentType: "text/plain", body: Array("done".utf8))
        case "events", "ticks":
            response.beginStream(
                status: 200, contentType: "text/event-stream",
                filler: .eventStream(afterMicroseconds: pingMicroseconds))
            for _ in 0..<(parts.first == "ticks" ? 60 : 1) {
                await pause(seconds)
                do throws(HTTPError) { try await response.write(Array("data: x\n\n".utf8)) } catch { return }
            }
            response.end()
        default:
            let header = request.header("x-given") ?? ""
            response.send(status: 200, contentType: "text/plain", body: Array("[\(header)]".utf8))
        }
    }

    /// Waits, at most as long as the client does.
    private func pause(_ seconds: Double) async {
        let waiters = Waiters()
        let end = loop.now + UInt64(seconds * 1e6)
        await withTaskCancellationHandler {
            await waiters.wait(loop, atMostMicroseconds: end - loop.now) { [loop] in
                loop.now < end && !Task.isCancelled
            }
        } onCancel: {
            loop.execute { waiters.wake() }
        }
    }
}

/// Runs `body` with a server in virtual time, and sees to it that nothing of either is left.
func withMemoryServer(
    _ limits: HTTPLimits = HTTPLimits(), pingMicroseconds: UInt64 = 15_000_000, seed: UInt64 = 7,
    _ body: @escaping @Sendable (MemoryLoop, Int, HTTPServer) async throws -> Void
) throws {
    let network = MemoryNetwork(seed: seed)
    let loop = network.makeLoop()
    let done: Bool? = try network.run(on: loop) {
        let server = HTTPServer(
            loop: loop, limits: limits, handler: TimedHandler(loop, pingMicroseconds: pingMicroseconds))
        let port = try server.listen(host: "server", port: 0)
        try await body(loop, port, server)
        server.close()
        return true
    }
    #expect(done == true, "came to rest before the end; seed \(seed)")
    network.runUntilIdle()
    #expect(network.openStreamCount == 0, "seed \(seed)")
}

extension MemoryLoop {
    /// Lets virtual time pass.
    func pass(seconds: Double) async {
        await withCheckedContinuation { done in
            schedule(afterMicroseconds: UInt64(seconds * 1e6)) { done.resume() }
        }
    }
}
